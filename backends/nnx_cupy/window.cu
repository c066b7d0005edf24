#include "common.cuh"

// Windows along an axis: x (before, length, after), windows (before, count, size, after); entry j of
// window i is entry stride i + dilation j of the axis.

extern "C" __global__ void windows(
    const T* __restrict__ x, T* __restrict__ y, Index before, Index length, Index count,
    Index size, Index after, Index stride, Index dilation) {
  for (Index at = first(); at < before * count * size * after; at += step()) {
    Index rest = at / after, a = at - rest * after, window = rest / size;
    Index j = rest - window * size, b = window / count, i = window - b * count;
    y[at] = x[(b * length + stride * i + dilation * j) * after + a];
  }
}

// The adjoint: a thread gathers one entry of y, from the windows that see it.
extern "C" __global__ void fold(
    const T* __restrict__ x, T* __restrict__ y, Index before, Index length, Index count,
    Index size, Index after, Index stride, Index dilation) {
  for (Index at = first(); at < before * length * after; at += step()) {
    Index rest = at / after, a = at - rest * after, b = rest / length, place = rest - b * length;
    A total = 0;
    for (Index j = 0; j < size; j++) {
      Index start = place - dilation * j, i = start / stride;
      if (start >= 0 && i * stride == start && i < count)
        total += (A)x[((b * count + i) * size + j) * after + a];
    }
    y[at] = (T)total;
  }
}
