#include "common.cuh"
#include "geometry.cuh"

typedef NNX_PLACE Place;  // unsigned char where a window has so few entries, else int

// y (planes, places) = the largest entry of each window, NaN if there is one; place: the first such.
extern "C" __global__ void max_pool(
    const T* __restrict__ x, T* __restrict__ y, Place* __restrict__ place, Index planes,
    Index image, Index places, Index size, Index stride, Index gap, Index before) {
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x;
  for (Index t = first(); t < planes * all; t += step()) {
    const T* from = x + (int)t / all * area;
    A best = 0;
    int found = -1;
    w.entries((int)t % all, [&](int i, int q, bool inside) {
      if (!inside) return;
      A v = (A)from[i];
      if (found < 0 || v > best || (v != v && best == best)) {
        best = v;
        found = q;
      }
    });
    y[t] = (T)best;
    place[t] = (Place)found;
  }
}

// dx (planes, image) = the sum of dy over the windows whose largest entry it was
extern "C" __global__ void max_pool_slope(
    const T* __restrict__ dy, const Place* __restrict__ place, T* __restrict__ dx, Index planes,
    Index image, Index places, Index size, Index stride, Index gap, Index before) {
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x;
  for (Index t = first(); t < planes * area; t += step()) {
    int from = (int)t / area * all;
    A total = 0;
    w.seen_by((int)t % area, [&](int i, int q) {
      if ((int)place[from + i] == q) total += (A)dy[from + i];
    });
    dx[t] = (T)total;
  }
}
