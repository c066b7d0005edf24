// cuBLAS: what CuPy calls for products.
#include "blas.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <string.h>

#include "device.hpp"

using namespace device;

size_t size_of(int type) { return type == FLOAT64 ? 8 : type == FLOAT32 ? 4 : 2; }

double get(const void* p, long long i, int type) {
  switch (type) {
    case FLOAT64: return ((const double*)p)[i];
    case FLOAT32: return ((const float*)p)[i];
    case FLOAT16: return __half2float(((const __half*)p)[i]);
    case BFLOAT16: return __bfloat162float(((const __nv_bfloat16*)p)[i]);
  }
  wrong("type %d in a product", type);
}

void put(void* p, long long i, int type, double v) {
  switch (type) {
    case FLOAT64: ((double*)p)[i] = v; break;
    case FLOAT32: ((float*)p)[i] = v; break;
    case FLOAT16: ((__half*)p)[i] = __float2half(v); break;
    case BFLOAT16: ((__nv_bfloat16*)p)[i] = __float2bfloat16(v); break;
  }
}

Matrix Matrix::behind(long long entries) const {
  Matrix next = *this;
  next.at = (char*)at + entries * (long long)size_of(type);
  return next;
}

namespace {

// What is left of a float32 factor: ten bits behind the point in TF32, seven in bfloat16.
double rounded(double v, int compute) {
  int dropped = compute == IN_TF32 ? 13 : compute == IN_BFLOAT16 ? 16 : 0;
  if (!dropped || v != v) return v;
  float f = v;
  unsigned bits;
  memcpy(&bits, &f, 4);
  bits = (bits + (1u << (dropped - 1))) & ~((1u << dropped) - 1);
  memcpy(&f, &bits, 4);
  return f;
}

void check(const char* what, const Matrix& m) {
  if (!m.rows || !m.cols) return;
  if (m.ld < m.rows || bytes_from(m.at) < ((m.cols - 1) * m.ld + m.rows) * size_of(m.type))
    wrong("a product's %s (%lld, %lld) is not in the device's memory", what, m.rows, m.cols);
}

std::vector<double> loaded(const Matrix& m, int compute) {  // row-major, turned
  long long rows = m.turned ? m.cols : m.rows, cols = m.turned ? m.rows : m.cols;
  std::vector<double> values(rows * cols);
  for (long long i = 0; i < rows; i++)
    for (long long j = 0; j < cols; j++) {
      double v = get(m.at, m.turned ? i * m.ld + j : j * m.ld + i, m.type);
      values[i * cols + j] = m.type == FLOAT32 ? rounded(v, compute) : v;
    }
  return values;
}

}  // namespace

void product(int compute, double alpha, const Matrix& a, const Matrix& b, double beta,
             const Matrix& y) {
  check("first factor", a);
  check("second factor", b);
  check("result", y);
  std::vector<double> left = loaded(a, compute), right = loaded(b, compute);
  long long inner = a.turned ? a.rows : a.cols;
  for (long long i = 0; i < y.rows; i++) {
    std::vector<double> row(y.cols, 0.0);
    for (long long k = 0; k < inner; k++)
      for (long long j = 0; j < y.cols; j++)
        row[j] += left[i * inner + k] * right[k * y.cols + j];
    for (long long j = 0; j < y.cols; j++) {
      long long at = j * y.ld + i;
      put(y.at, at, y.type, alpha * row[j] + (beta ? beta * get(y.at, at, y.type) : 0));
    }
  }
}

namespace {

struct Handle {
  void* stream = nullptr;
  int math = 0, mode = 0;
};

struct Shape {  // y (m, n) = op(a) (m, k) @ op(b) (k, n)
  int turned_a, turned_b, m, n, k;

  Matrix a(const void* p, int t, int ld) const {
    return {(void*)p, t, turned_a ? k : m, turned_a ? m : k, ld, turned_a != 0};
  }
  Matrix b(const void* p, int t, int ld) const {
    return {(void*)p, t, turned_b ? n : k, turned_b ? k : n, ld, turned_b != 0};
  }
  Matrix y(void* p, int t, int ld) const { return {p, t, m, n, ld, false}; }
};

int products(void* handle, int compute, double alpha, const Matrix& a, long long step_a,
             const Matrix& b, long long step_b, double beta, const Matrix& y, long long step_y,
             int count) {
  LOCKED;
  int error = enqueue(((Handle*)handle)->stream, [=] {
    for (long long i = 0; i < count; i++)
      product(compute, alpha, a.behind(i * step_a), b.behind(i * step_b), beta,
              y.behind(i * step_y));
  });
  return error ? EXECUTION_FAILED : SUCCESS;
}

// Of matrices at addresses that the device's memory holds.
int products(void* handle, double alpha, const Matrix& a, void* const* as, const Matrix& b,
             void* const* bs, double beta, const Matrix& y, void* const* ys, int count) {
  LOCKED;
  int error = enqueue(((Handle*)handle)->stream, [=] {
    for (int i = 0; i < count; i++) {
      Matrix left = a, right = b, out = y;
      left.at = as[i], right.at = bs[i], out.at = ys[i];
      product(0, alpha, left, right, beta, out);
    }
  });
  return error ? EXECUTION_FAILED : SUCCESS;
}

double scalar(const void* p, int compute) {
  bool wide = compute == IN_FLOAT64 || compute == IN_FLOAT64_PEDANTIC;
  return wide ? *(const double*)p : *(const float*)p;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** h) { return *h = new Handle, SUCCESS; }
int cublasDestroy_v2(void* h) { return delete (Handle*)h, SUCCESS; }
int cublasGetVersion_v2(void*, int* v) { return *v = 130000, SUCCESS; }
int cublasSetStream_v2(void* h, void* s) { return ((Handle*)h)->stream = s, SUCCESS; }
int cublasGetStream_v2(void* h, void** s) { return *s = ((Handle*)h)->stream, SUCCESS; }
int cublasSetMathMode(void* h, int m) { return ((Handle*)h)->math = m, SUCCESS; }
int cublasGetMathMode(void* h, int* m) { return *m = ((Handle*)h)->math, SUCCESS; }
int cublasSetPointerMode_v2(void* h, int m) { return ((Handle*)h)->mode = m, SUCCESS; }
int cublasGetPointerMode_v2(void* h, int* m) { return *m = ((Handle*)h)->mode, SUCCESS; }

int cublasDgemm_v2(void* h, int ta, int tb, int m, int n, int k, const double* alpha,
                   const double* a, int lda, const double* b, int ldb, const double* beta,
                   double* y, int ldy) {
  Shape s = {ta, tb, m, n, k};
  return products(h, IN_FLOAT64, *alpha, s.a(a, FLOAT64, lda), 0, s.b(b, FLOAT64, ldb), 0, *beta,
                  s.y(y, FLOAT64, ldy), 0, 1);
}
int cublasSgemmEx(void* h, int ta, int tb, int m, int n, int k, const float* alpha, const void* a,
                  int type_a, int lda, const void* b, int type_b, int ldb, const float* beta,
                  void* y, int type_y, int ldy) {
  Shape s = {ta, tb, m, n, k};
  return products(h, 0, *alpha, s.a(a, type_a, lda), 0, s.b(b, type_b, ldb), 0, *beta,
                  s.y(y, type_y, ldy), 0, 1);
}
int cublasGemmEx(void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a,
                 int type_a, int lda, const void* b, int type_b, int ldb, const void* beta,
                 void* y, int type_y, int ldy, int compute, int) {
  Shape s = {ta, tb, m, n, k};
  return products(h, compute, scalar(alpha, compute), s.a(a, type_a, lda), 0,
                  s.b(b, type_b, ldb), 0, scalar(beta, compute), s.y(y, type_y, ldy), 0, 1);
}
int cublasSgemmBatched(void* h, int ta, int tb, int m, int n, int k, const float* alpha,
                       void* const* a, int lda, void* const* b, int ldb, const float* beta,
                       void* const* y, int ldy, int count) {
  Shape s = {ta, tb, m, n, k};
  return products(h, *alpha, s.a(nullptr, FLOAT32, lda), a, s.b(nullptr, FLOAT32, ldb), b, *beta,
                  s.y(nullptr, FLOAT32, ldy), y, count);
}
int cublasDgemmBatched(void* h, int ta, int tb, int m, int n, int k, const double* alpha,
                       void* const* a, int lda, void* const* b, int ldb, const double* beta,
                       void* const* y, int ldy, int count) {
  Shape s = {ta, tb, m, n, k};
  return products(h, *alpha, s.a(nullptr, FLOAT64, lda), a, s.b(nullptr, FLOAT64, ldb), b, *beta,
                  s.y(nullptr, FLOAT64, ldy), y, count);
}
int cublasGemmStridedBatchedEx(
    void* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int type_a,
    int lda, long long step_a, const void* b, int type_b, int ldb, long long step_b,
    const void* beta, void* y, int type_y, int ldy, long long step_y, int count, int compute,
    int) {
  Shape s = {ta, tb, m, n, k};
  return products(h, compute, scalar(alpha, compute), s.a(a, type_a, lda), step_a,
                  s.b(b, type_b, ldb), step_b, scalar(beta, compute), s.y(y, type_y, ldy),
                  step_y, count);
}
}
