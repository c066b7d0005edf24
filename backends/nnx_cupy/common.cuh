// What every kernel here is written with. The Python that compiles a file defines
//   NNX_T  the type that is stored: float, double, __half, __nv_bfloat16
//   NNX_A  the type that computes: float, or double where double is stored
// Integers come as long long and options as double, which is what CuPy makes of Python's numbers.

#ifdef NNX_HEADER
#include NNX_HEADER
#endif

typedef NNX_T T;
typedef NNX_A A;
typedef long long Index;

constexpr int PACK = 16 / sizeof(T);  // numbers in the widest load

struct alignas(16) Pack {
  T v[PACK];
};

__device__ inline bool aligned(const void* p) { return (unsigned long long)p % 16 == 0; }

__device__ inline A minus_infinity() { return (A)__longlong_as_double(0xfff0000000000000LL); }

// This thread's place among all, and how many there are: for loops over any number of entries.
__device__ inline Index first() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline Index step() { return (Index)gridDim.x * blockDim.x; }

// Entries of arrays of any length, packs first: y[i] = f(x[i])
template <class F>
__device__ void map_all(const T* __restrict__ x, T* __restrict__ y, Index n, F f) {
  Index packs = aligned(x) && aligned(y) ? n / PACK : 0;
  for (Index i = first(); i < packs; i += step()) {
    Pack p = ((const Pack*)x)[i];
    for (int k = 0; k < PACK; k++) p.v[k] = (T)f((A)p.v[k]);
    ((Pack*)y)[i] = p;
  }
  for (Index i = packs * PACK + first(); i < n; i += step()) y[i] = (T)f((A)x[i]);
}

// z[i] = f(x[i], y[i])
template <class F>
__device__ void map_all(
    const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ z, Index n, F f) {
  Index packs = aligned(x) && aligned(y) && aligned(z) ? n / PACK : 0;
  for (Index i = first(); i < packs; i += step()) {
    Pack p = ((const Pack*)x)[i], q = ((const Pack*)y)[i];
    for (int k = 0; k < PACK; k++) p.v[k] = (T)f((A)p.v[k], (A)q.v[k]);
    ((Pack*)z)[i] = p;
  }
  for (Index i = packs * PACK + first(); i < n; i += step()) z[i] = (T)f((A)x[i], (A)y[i]);
}

// Rows. A block has blockDim.x threads for a row (32, or a larger power of two for one row a
// block) and blockDim.y rows at a time.
__device__ inline Index first_row() { return (Index)blockIdx.x * blockDim.y + threadIdx.y; }
__device__ inline Index row_step() { return (Index)gridDim.x * blockDim.y; }

// Calls f(i, x[i]) for this thread's entries of a row.
template <class F>
__device__ void each(const T* __restrict__ x, int n, F f) {
  if (n % PACK == 0 && aligned(x)) {
    for (int i = threadIdx.x * PACK; i < n; i += blockDim.x * PACK) {
      Pack p = *(const Pack*)(x + i);
      for (int k = 0; k < PACK; k++) f(i + k, (A)p.v[k]);
    }
  } else {
    for (int i = threadIdx.x; i < n; i += blockDim.x) f(i, (A)x[i]);
  }
}

// y[i] = f(i, x[i])
template <class F>
__device__ void map(const T* __restrict__ x, T* __restrict__ y, int n, F f) {
  if (n % PACK == 0 && aligned(x) && aligned(y)) {
    for (int i = threadIdx.x * PACK; i < n; i += blockDim.x * PACK) {
      Pack p = *(const Pack*)(x + i);
      for (int k = 0; k < PACK; k++) p.v[k] = (T)f(i + k, (A)p.v[k]);
      *(Pack*)(y + i) = p;
    }
  } else {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = (T)f(i, (A)x[i]);
  }
}

// Calls f(i, x[i], y[i])
template <class F>
__device__ void each(const T* __restrict__ x, const T* __restrict__ y, int n, F f) {
  if (n % PACK == 0 && aligned(x) && aligned(y)) {
    for (int i = threadIdx.x * PACK; i < n; i += blockDim.x * PACK) {
      Pack p = *(const Pack*)(x + i), q = *(const Pack*)(y + i);
      for (int k = 0; k < PACK; k++) f(i + k, (A)p.v[k], (A)q.v[k]);
    }
  } else {
    for (int i = threadIdx.x; i < n; i += blockDim.x) f(i, (A)x[i], (A)y[i]);
  }
}

// z[i] = f(i, x[i], y[i])
template <class F>
__device__ void map(const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ z, int n, F f) {
  if (n % PACK == 0 && aligned(x) && aligned(y) && aligned(z)) {
    for (int i = threadIdx.x * PACK; i < n; i += blockDim.x * PACK) {
      Pack p = *(const Pack*)(x + i), q = *(const Pack*)(y + i);
      for (int k = 0; k < PACK; k++) p.v[k] = (T)f(i + k, (A)p.v[k], (A)q.v[k]);
      *(Pack*)(z + i) = p;
    }
  } else {
    for (int i = threadIdx.x; i < n; i += blockDim.x) z[i] = (T)f(i, (A)x[i], (A)y[i]);
  }
}

__device__ inline A exchanged(A v, int distance) {
  return __shfl_xor_sync(0xffffffffu, v, distance);
}

struct Add {
  __device__ A operator()(A a, A b) const { return a + b; }
};

// The merged values of all threads of a row, in each of them.   part: shared, 32 entries
template <class V, class F>
__device__ V over_row(V v, V* part, F merge) {
  for (int o = 16; o; o >>= 1) v = merge(v, exchanged(v, o));
  if (blockDim.x > 32) {
    int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    if (lane == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = part[lane % warps];
    for (int o = warps / 2; o; o >>= 1) v = merge(v, exchanged(v, o));
    __syncthreads();  // until then others read what the next call writes
  }
  return v;
}
