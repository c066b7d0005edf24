#include "common.cuh"

// Images (planes, height, width), windows (planes, out_h, out_w). Padding is what is before the image.

struct Window {  // of one result: the part within the image
  Index plane, top, left, from_h, to_h, from_w, to_w;
};

__device__ inline Window window_of(
    Index i, Index height, Index width, Index size_h, Index size_w, Index out_h, Index out_w,
    Index stride_h, Index stride_w, Index pad_h, Index pad_w) {
  Index row = i / out_w, plane = row / out_h;
  Window w;
  w.plane = plane;
  w.top = (row - plane * out_h) * stride_h - pad_h;
  w.left = (i - row * out_w) * stride_w - pad_w;
  w.from_h = w.top < 0 ? 0 : w.top;
  w.from_w = w.left < 0 ? 0 : w.left;
  w.to_h = w.top + size_h < height ? w.top + size_h : height;
  w.to_w = w.left + size_w < width ? w.left + size_w : width;
  return w;
}

// y = the largest of each window, NaN if there is one; place = which of the window it is, row by
// row, the first if there are several.
extern "C" __global__ void max_pool(
    const T* __restrict__ x, T* __restrict__ y, int* __restrict__ place, Index planes,
    Index height, Index width, Index size_h, Index size_w, Index out_h, Index out_w,
    Index stride_h, Index stride_w, Index pad_h, Index pad_w) {
  for (Index i = first(); i < planes * out_h * out_w; i += step()) {
    Window w = window_of(
        i, height, width, size_h, size_w, out_h, out_w, stride_h, stride_w, pad_h, pad_w);
    const T* plane = x + w.plane * height * width;
    A best = (A)plane[w.from_h * width + w.from_w];
    Index at = (w.from_h - w.top) * size_w + w.from_w - w.left;
    for (Index h = w.from_h; h < w.to_h; h++)
      for (Index c = w.from_w; c < w.to_w; c++) {
        A v = (A)plane[h * width + c];
        if (v > best || (v != v && best == best)) {
          best = v;
          at = (h - w.top) * size_w + c - w.left;
        }
      }
    y[i] = (T)best;
    place[i] = (int)at;
  }
}

// The windows that see row or column `at` of the padded image: from, to (not included).
__device__ inline Index first_window(Index at, Index size, Index stride) {
  return at < size ? 0 : (at - size) / stride + 1;
}
__device__ inline Index end_of_windows(Index at, Index stride, Index out) {
  Index end = at / stride + 1;
  return end < out ? end : out;
}

// Calls f(window, which of the window) for all that see an entry of the image.
template <class F>
__device__ void each_window(
    Index i, Index height, Index width, Index size_h, Index size_w, Index out_h, Index out_w,
    Index stride_h, Index stride_w, Index pad_h, Index pad_w, F f) {
  Index row = i / width, plane = row / height;
  Index h = row - plane * height + pad_h, w = i - row * width + pad_w;
  Index to_h = end_of_windows(h, stride_h, out_h), to_w = end_of_windows(w, stride_w, out_w);
  for (Index k = first_window(h, size_h, stride_h); k < to_h; k++)
    for (Index l = first_window(w, size_w, stride_w); l < to_w; l++)
      f((plane * out_h + k) * out_w + l, (h - k * stride_h) * size_w + w - l * stride_w);
}

// dx = the sum of the dy of windows in which this entry is the largest
extern "C" __global__ void max_pool_slope(
    const T* __restrict__ dy, const int* __restrict__ place, T* __restrict__ dx, Index planes,
    Index height, Index width, Index size_h, Index size_w, Index out_h, Index out_w,
    Index stride_h, Index stride_w, Index pad_h, Index pad_w) {
  for (Index i = first(); i < planes * height * width; i += step()) {
    A total = 0;
    each_window(
        i, height, width, size_h, size_w, out_h, out_w, stride_h, stride_w, pad_h, pad_w,
        [&](Index window, Index at) { total += place[window] == at ? (A)dy[window] : (A)0; });
    dx[i] = (T)total;
  }
}

// What a mean is divided by: all entries of the window, or those within the image.
__device__ inline A divisor(const Window& w, Index size_h, Index size_w, Index all) {
  return (A)(all ? size_h * size_w : (w.to_h - w.from_h) * (w.to_w - w.from_w));
}

// y = the mean of each window
extern "C" __global__ void avg_pool(
    const T* __restrict__ x, T* __restrict__ y, Index planes, Index height, Index width,
    Index size_h, Index size_w, Index out_h, Index out_w, Index stride_h, Index stride_w,
    Index pad_h, Index pad_w, Index all) {
  for (Index i = first(); i < planes * out_h * out_w; i += step()) {
    Window w = window_of(
        i, height, width, size_h, size_w, out_h, out_w, stride_h, stride_w, pad_h, pad_w);
    A total = 0;
    for (Index h = w.from_h; h < w.to_h; h++)
      for (Index c = w.from_w; c < w.to_w; c++)
        total += (A)x[(w.plane * height + h) * width + c];
    y[i] = (T)(total / divisor(w, size_h, size_w, all));
  }
}

extern "C" __global__ void avg_pool_slope(
    const T* __restrict__ dy, T* __restrict__ dx, Index planes, Index height, Index width,
    Index size_h, Index size_w, Index out_h, Index out_w, Index stride_h, Index stride_w,
    Index pad_h, Index pad_w, Index all) {
  for (Index i = first(); i < planes * height * width; i += step()) {
    A total = 0;
    each_window(
        i, height, width, size_h, size_w, out_h, out_w, stride_h, stride_w, pad_h, pad_w,
        [&](Index window, Index) {
          Window w = window_of(
              window, height, width, size_h, size_w, out_h, out_w, stride_h, stride_w, pad_h,
              pad_w);
          total += (A)dy[window] / divisor(w, size_h, size_w, all);
        });
    dx[i] = (T)total;
  }
}
