#include "common.cuh"
#include "geometry.cuh"

// y (planes, places) = the mean of each window: over all its entries, or over those within x
extern "C" __global__ void avg_pool(
    const T* __restrict__ x, T* __restrict__ y, Index planes, Index with_padding, Index image,
    Index places, Index size, Index stride, Index gap, Index before) {
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x;
  for (Index t = first(); t < planes * all; t += step()) {
    const T* from = x + (int)t / all * area;
    A total = 0;
    w.entries((int)t % all, [&](int i, int, bool inside) {
      if (inside) total += (A)from[i];
    });
    y[t] = (T)(total / (with_padding ? w.size.y * w.size.x : w.inside((int)t % all)));
  }
}

// dx (planes, image) = the sum of dy / count over the windows that saw it
extern "C" __global__ void avg_pool_slope(
    const T* __restrict__ dy, T* __restrict__ dx, Index planes, Index with_padding, Index image,
    Index places, Index size, Index stride, Index gap, Index before) {
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x;
  for (Index t = first(); t < planes * area; t += step()) {
    const T* from = dy + (int)t / area * all;
    A total = 0;
    w.seen_by((int)t % area, [&](int i, int) {
      total += (A)from[i] / (with_padding ? w.size.y * w.size.x : w.inside(i));
    });
    dx[t] = (T)total;
  }
}
