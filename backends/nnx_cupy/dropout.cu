#include "common.cuh"

// y = x scale where drawn >= p, else x 0, so that NaN stays NaN
extern "C" __global__ void dropout(
    const T* __restrict__ x, const T* __restrict__ drawn, T* __restrict__ y, double p,
    double scale, Index size) {
  A least = (A)p, kept = (A)scale;
  map_all(x, drawn, y, size, [&](A v, A u) { return v * (u >= least ? kept : (A)0); });
}
