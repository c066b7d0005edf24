// cuBLASLt: what nnx calls for the products of a graph, with their epilogues.
#include <stdint.h>
#include <string.h>

#include <map>

#include "blas.hpp"
#include "device.hpp"

using namespace device;

namespace {

// of cublasLtMatmulDescAttributes_t, ...LayoutAttribute_t, ...PreferenceAttributes_t, ...Epilogue_t
enum { TRANSA = 3, TRANSB = 4, EPILOGUE = 7, BIAS = 8, AUX = 11, AUX_LD = 12 };
enum { BATCH_COUNT = 5, BATCH_OFFSET = 6 };
enum { MAX_WORKSPACE = 1, ALIGNMENT_A = 5, ALIGNMENT_B = 6, ALIGNMENT_Y = 8 };
enum { PLAIN = 1, WITH_BIAS = 4, RELU_BIAS = 6, RELU_AUX_BIAS = 134, DRELU_BGRAD = 152 };
enum { BGRADA = 256 };

typedef std::map<int, std::vector<char>> Attributes;
struct Desc {
  int compute, scale;
  Attributes told;
};
struct Layout {
  int type;
  uint64_t rows, cols;
  int64_t ld;
  Attributes told;
};
struct Algorithm {  // in the eight words that a real one has
  uint32_t magic, aligned_a, aligned_b, aligned_y;
  uint64_t rest[6];
};
struct Result {
  Algorithm algorithm;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
const uint32_t MAGIC = 0x6e6e78;
const size_t WORKSPACE = 4096;  // bytes that each asks for, and overwrites

int keep(Attributes& a, int name, const void* p, size_t n) {
  a[name] = std::vector<char>((const char*)p, (const char*)p + n);
  return SUCCESS;
}

template <class V> V told(const Attributes& a, int name, V otherwise) {
  auto it = a.find(name);
  if (it == a.end()) return otherwise;
  if (it->second.size() != sizeof(V))
    wrong("attribute %d of cuBLASLt's is given %zu bytes", name, it->second.size());
  V v;
  memcpy(&v, it->second.data(), sizeof v);
  return v;
}

void demand(bool good, const char* what) {
  if (!good) wrong("cublasLtMatmul: %s", what);
}

struct Epilogue {
  int kind, type;
  char *vector, *mask;
  int64_t ld;

  explicit Epilogue(const Desc& d, int type)
      : kind(told<uint32_t>(d.told, EPILOGUE, PLAIN)), type(type),
        vector((char*)told<int64_t>(d.told, BIAS, 0)), mask((char*)told<int64_t>(d.told, AUX, 0)),
        ld(told<int64_t>(d.told, AUX_LD, 0)) {}

  bool bias() const { return kind == WITH_BIAS || kind == RELU_BIAS || kind == RELU_AUX_BIAS; }
  bool relu() const { return kind == RELU_BIAS || kind == RELU_AUX_BIAS; }
  bool masked() const { return kind == RELU_AUX_BIAS || kind == DRELU_BGRAD; }

  void check(const Matrix& y) const {
    demand(bias() || kind == DRELU_BGRAD || kind == BGRADA, "an epilogue that is not known here");
    demand(bytes_from(vector) >= y.rows * size_of(type), "its bias lies outside");
    if (masked())
      demand(ld % 128 == 0 && ld >= y.rows && bytes_from(mask) >= size_t(y.cols * ld / 8), "a mask");
  }
  // The bit of entry (i, j): whether ReLU let it pass.
  void let(int64_t i, int64_t j, bool pass) const {
    char& byte = mask[(j * ld + i) / 8];
    byte = (byte & ~(1 << i % 8)) | pass << i % 8;
  }
  bool let(int64_t i, int64_t j) const { return mask[(j * ld + i) / 8] >> i % 8 & 1; }

  double apply(double v, int64_t i, int64_t j) const {
    if (bias()) v += get(vector, i, type);
    if (kind == DRELU_BGRAD && !let(i, j)) v = 0;
    if (!relu()) return v;
    bool pass = !(v <= 0);
    if (masked()) let(i, j, pass);
    return pass ? v : 0;
  }

  void operator()(const Matrix& a, const Matrix& y) const {
    check(y);
    for (int64_t i = 0; i < y.rows; i++) {
      double sum = 0;
      for (int64_t j = 0; j < y.cols; j++) {
        int64_t at = j * y.ld + i;
        if (kind != BGRADA) put(y.at, at, type, apply(get(y.at, at, type), i, j));
        sum += get(y.at, at, type);
      }
      if (kind == DRELU_BGRAD) put(vector, i, type, sum);
      if (kind == BGRADA) put(vector, i, type, row_sum(a, i));
    }
  }
  static double row_sum(const Matrix& a, int64_t i) {
    double sum = 0;
    for (int64_t k = 0; k < (a.turned ? a.rows : a.cols); k++)
      sum += get(a.at, a.turned ? i * a.ld + k : k * a.ld + i, a.type);
    return sum;
  }
};

Matrix matrix(const void* at, const Layout& l, bool turned) {
  return {(void*)at, l.type, (long long)l.rows, (long long)l.cols, l.ld, turned};
}

}  // namespace

extern "C" {

int cublasLtCreate(void** h) { return *h = (void*)1, SUCCESS; }
int cublasLtDestroy(void*) { return SUCCESS; }
size_t cublasLtGetVersion() { return 130000; }
const char* cublasLtGetStatusName(int) { return "CUBLAS_STATUS"; }
const char* cublasLtGetStatusString(int) { return "a status of the emulated cuBLASLt"; }

int cublasLtMatmulDescCreate(Desc** d, int compute, int scale) {
  return *d = new Desc{compute, scale}, SUCCESS;
}
int cublasLtMatmulDescDestroy(Desc* d) { return delete d, SUCCESS; }
int cublasLtMatmulDescSetAttribute(Desc* d, int name, const void* p, size_t n) {
  return keep(d->told, name, p, n);
}
int cublasLtMatrixLayoutCreate(Layout** l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  return *l = new Layout{type, rows, cols, ld}, SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Layout* l) { return delete l, SUCCESS; }
int cublasLtMatrixLayoutSetAttribute(Layout* l, int name, const void* p, size_t n) {
  return keep(l->told, name, p, n);
}
int cublasLtMatmulPreferenceCreate(Attributes** p) { return *p = new Attributes, SUCCESS; }
int cublasLtMatmulPreferenceDestroy(Attributes* p) { return delete p, SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(Attributes* a, int name, const void* p, size_t n) {
  return keep(*a, name, p, n);
}

int cublasLtMatmulAlgoGetHeuristic(
    void*, Desc* d, Layout* a, Layout* b, Layout*, Layout* y, Attributes* p, int wanted,
    Result* r, int* found) {
  bool ta = told<int32_t>(d->told, TRANSA, 0), tb = told<int32_t>(d->told, TRANSB, 0);
  uint64_t inner = ta ? a->rows : a->cols;
  bool fits = (ta ? a->cols : a->rows) == y->rows && (tb ? b->rows : b->cols) == y->cols;
  if (wanted < 1 || !fits || inner != (tb ? b->cols : b->rows)) return INVALID_VALUE;
  if (told<uint64_t>(*p, MAX_WORKSPACE, 0) < WORKSPACE) return NOT_SUPPORTED;
  *r = Result{};
  r->algorithm = {
      MAGIC, told<uint32_t>(*p, ALIGNMENT_A, 256), told<uint32_t>(*p, ALIGNMENT_B, 256),
      told<uint32_t>(*p, ALIGNMENT_Y, 256)};
  r->workspace = WORKSPACE;
  *found = 1;
  return SUCCESS;
}

int cublasLtMatmul(
    void*, Desc* d, const void* alpha, const void* a, Layout* la, const void* b, Layout* lb,
    const void* beta, const void* c, Layout*, void* y, Layout* ly, const Algorithm* algorithm,
    void* workspace, size_t bytes, void* stream) {
  LOCKED;
  auto aligned = [](const void* p, uint32_t n) { return (size_t)p % n == 0; };
  demand(algorithm->magic == MAGIC, "an algorithm that nobody chose");
  demand(aligned(a, algorithm->aligned_a) && aligned(b, algorithm->aligned_b) &&
             aligned(y, algorithm->aligned_y), "an operand is less aligned than was said");
  demand(bytes >= WORKSPACE && bytes_from(workspace) >= bytes && aligned(workspace, 256),
         "its workspace");
  auto number = [&](const void* p) { return d->scale ? *(double*)p : *(float*)p; };
  double factor = number(alpha);
  demand(c == y && number(beta) == 0, "what is added");
  int count = told<int32_t>(ly->told, BATCH_COUNT, 1), compute = d->compute;
  auto offset = [](Layout* l) { return told<int64_t>(l->told, BATCH_OFFSET, 0); };
  int64_t step_a = offset(la), step_b = offset(lb), step_y = offset(ly);
  Matrix left = matrix(a, *la, told<int32_t>(d->told, TRANSA, 0));
  Matrix right = matrix(b, *lb, told<int32_t>(d->told, TRANSB, 0)), out = matrix(y, *ly, false);
  Epilogue epilogue(*d, ly->type);
  demand(count == 1 || epilogue.kind == PLAIN, "an epilogue of a stack");
  int error = enqueue(stream, [=] {
    memset(workspace, 0xAB, WORKSPACE);
    for (int64_t i = 0; i < count; i++)
      product(compute, factor, left.behind(i * step_a), right.behind(i * step_b), 0,
              out.behind(i * step_y));
    if (epilogue.kind != PLAIN) epilogue(left, out);
  });
  return error ? EXECUTION_FAILED : SUCCESS;
}
}
