#include "common.cuh"
#include "geometry.cuh"

// A launch's arrays have fewer than 2^31 entries each, so that places in them are ints.

// columns[(c, q), (n, i)] = what entry q of the window at place i of image n sees in channel c.
extern "C" __global__ void im2col(
    const T* __restrict__ x, T* __restrict__ columns, Index images, Index channels, Index image,
    Index places, Index size, Index stride, Index gap, Index before) {
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x, width = (int)images * all;
  for (Index t = first(); t < channels * width; t += step()) {
    int c = (int)t / width, at = (int)t % width;
    const T* from = x + (at / all * (int)channels + c) * area;
    T* to = columns + c * w.size.y * w.size.x * width + at;
    w.entries(at % all, [&](int i, int q, bool inside) {
      to[q * width] = inside ? from[i] : (T)0;
    });
  }
}

// y (images, channels, image) = b + the sum of the entries of `columns` that saw it: the adjoint of
// im2col, each number summed by one thread, in one order.   b may be null
extern "C" __global__ void col2im(
    const T* __restrict__ columns, const T* __restrict__ b, T* __restrict__ y, Index images,
    Index channels, Index image, Index places, Index size, Index stride, Index gap, Index before) {
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x, width = (int)images * all;
  for (Index t = first(); t < images * channels * area; t += step()) {
    int row = (int)t / area, c = row % (int)channels, n = row / (int)channels;
    const T* from = columns + c * w.size.y * w.size.x * width + n * all;
    A total = b ? (A)b[c] : (A)0;
    w.seen_by((int)t % area, [&](int i, int q) { total += (A)from[q * width + i]; });
    y[t] = (T)total;
  }
}

// y (m, n, places) = x (n, m, places) + b (n)   b may be null. A row has blockDim.x threads.
extern "C" __global__ void exchange(
    const T* __restrict__ x, const T* __restrict__ b, T* __restrict__ y, Index n, Index m,
    Index places) {
  for (Index row = first_row(); row < n * m; row += row_step()) {
    int i = (int)row % (int)n, j = (int)row / (int)n;
    const T* from = x + (i * m + j) * places;
    T* to = y + row * places;
    A shift = b ? (A)b[i] : (A)0;
    for (int k = threadIdx.x; k < places; k += blockDim.x)
      to[k] = b ? (T)((A)from[k] + shift) : from[k];
  }
}

// Depthwise: each channel of x has `each` kernels of its own, W (channels, each, size).

// y = b + the sum of W x over a window   b may be null
extern "C" __global__ void depthwise(
    const T* __restrict__ x, const T* __restrict__ W, const T* __restrict__ b, T* __restrict__ y,
    Index images, Index channels, Index each, Index image, Index places, Index size, Index stride,
    Index gap, Index before) {
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x, out = (int)(channels * each);
  for (Index t = first(); t < images * out * all; t += step()) {
    int row = (int)t / all, o = row % out;
    const T* from = x + row / (int)each * area;
    const T* kernel = W + o * w.size.y * w.size.x;
    A total = b ? (A)b[o] : (A)0;
    w.entries((int)t % all, [&](int i, int q, bool inside) {
      if (inside) total += (A)from[i] * (A)kernel[q];
    });
    y[t] = (T)total;
  }
}

// dx = b + the sum of W dy over the windows that saw it   b may be null
extern "C" __global__ void depthwise_spread(
    const T* __restrict__ dy, const T* __restrict__ W, const T* __restrict__ b,
    T* __restrict__ dx, Index images, Index channels, Index each, Index image, Index places,
    Index size, Index stride, Index gap, Index before) {
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x, window = w.size.y * w.size.x;
  for (Index t = first(); t < images * channels * area; t += step()) {
    int row = (int)t / area, c = row % (int)channels;
    A total = b ? (A)b[c] : (A)0;
    for (int e = 0; e < each; e++) {
      const T* from = dy + (row * (int)each + e) * all;
      const T* kernel = W + (c * (int)each + e) * window;
      w.seen_by((int)t % area, [&](int i, int q) { total += (A)from[i] * (A)kernel[q]; });
    }
    dx[t] = (T)total;
  }
}

// dW: a block, of one row of threads, for each entry of the kernels.
extern "C" __global__ void depthwise_correlate(
    const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dW, Index images,
    Index channels, Index each, Index image, Index places, Index size, Index stride, Index gap,
    Index before) {
  __shared__ A part[32];
  Windows w(image, places, size, stride, gap, before);
  int area = w.image.y * w.image.x, all = w.places.y * w.places.x, window = w.size.y * w.size.x;
  int out = (int)(channels * each);
  for (int r = blockIdx.x; r < out * window; r += gridDim.x) {
    int o = r / window, q = r % window;
    int down = q / w.size.x * w.gap.y - w.before.y, right = q % w.size.x * w.gap.x - w.before.x;
    A total = 0;
    for (Index t = threadIdx.x; t < images * all; t += blockDim.x) {
      int row = (int)t / all * out + o, at = (int)t % all;
      int i = at / w.places.x * w.stride.y + down, j = at % w.places.x * w.stride.x + right;
      if (i >= 0 && i < w.image.y && j >= 0 && j < w.image.x)
        total += (A)dy[row * all + at] * (A)x[row / (int)each * area + i * w.image.x + j];
    }
    total = over_row(total, part, Add());
    if (threadIdx.x == 0) dW[r] = (T)total;
  }
}
