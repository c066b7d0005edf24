#include "common.cuh"

typedef NNX_LABEL Label;  // int or long long

// Arrays are (before, n, after) and (before, size, after); indices count from the end if negative,
// and go round if out of range, as in CuPy. A block has blockDim.x threads for a row `after`.

__device__ inline Index place(Index i, Index size) {
  if (i < 0) i += size;
  if (i >= 0 && i < size) return i;
  i %= size;
  return i < 0 ? i + size : i;
}

// y[b, i] = x[b, indices[i]]
extern "C" __global__ void take(
    const T* __restrict__ x, const Label* __restrict__ indices, T* __restrict__ y, Index before,
    Index n, Index size, Index after) {
  for (Index row = first_row(); row < before * n; row += row_step()) {
    Index b = row / n, from = b * size + place(indices[row - b * n], size);
    const T* source = x + from * after;
    T* target = y + row * after;
    if (after % PACK == 0 && aligned(source) && aligned(target)) {
      for (Index j = threadIdx.x; j < after / PACK; j += blockDim.x)
        ((Pack*)target)[j] = ((const Pack*)source)[j];
    } else {
      for (Index j = threadIdx.x; j < after; j += blockDim.x) target[j] = source[j];
    }
  }
}

extern "C" __global__ void cleared(T* __restrict__ y, Index size) {
  for (Index i = first(); i < size; i += step()) y[i] = (T)0.0f;
}

// y[b, indices[i]] += x[b, i], y being 0: where an index comes first, its block adds all of x that
// go there, in order. So the sums are the same in every run. A block has 128 threads, which look at
// as many indices at once.
extern "C" __global__ void scatter_add(
    const T* __restrict__ x, const Label* __restrict__ indices, T* __restrict__ y, Index before,
    Index n, Index size, Index after) {
  __shared__ unsigned hits[4];
  for (Index i = blockIdx.x; i < n; i += gridDim.x) {
    Index to = place(indices[i], size);
    bool seen = false;
    for (Index k = threadIdx.x; k < i && !seen; k += 128) seen = place(indices[k], size) == to;
    if (__syncthreads_or(seen)) continue;
    for (Index from = i; from < n; from += 128) {
      Index k = from + threadIdx.x;
      unsigned votes = __ballot_sync(0xffffffffu, k < n && place(indices[k], size) == to);
      if (threadIdx.x % 32 == 0) hits[threadIdx.x / 32] = votes;
      __syncthreads();
      for (int w = 0; w < 4; w++)
        for (unsigned left = hits[w]; left; left &= left - 1) {
          Index hit = from + 32 * w + __ffs(left) - 1;
          for (Index j = threadIdx.x; j < before * after; j += 128) {
            Index b = j / after, column = j - b * after;
            T* sum = y + (b * size + to) * after + column;
            *sum = (T)((A)*sum + (A)x[(b * n + hit) * after + column]);
          }
        }
      __syncthreads();
    }
  }
}

// The same by atomic additions: in any order, so that the last bits of sums vary.
extern "C" __global__ void scatter_add_atomic(
    const T* __restrict__ x, const Label* __restrict__ indices, T* y, Index before, Index n,
    Index size, Index after) {
  for (Index row = first_row(); row < before * n; row += row_step()) {
    Index b = row / n, to = b * size + place(indices[row - b * n], size);
    for (Index j = threadIdx.x; j < after; j += blockDim.x)
      atomicAdd(y + to * after + j, x[row * after + j]);
  }
}
