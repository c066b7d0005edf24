#include "common.cuh"

// Images (n, channels, height, width) and what the windows of a convolution see of them, as columns
// (channels, kernel_h, kernel_w, n, out_h, out_w). Padding is what is before the image.

// columns = what each window sees, 0 outside of x. A thread goes over a window of one channel.
extern "C" __global__ void im2col(
    const T* __restrict__ x, T* __restrict__ columns, Index n, Index channels, Index height,
    Index width, Index kernel_h, Index kernel_w, Index out_h, Index out_w, Index stride_h,
    Index stride_w, Index pad_h, Index pad_w, Index dilation_h, Index dilation_w) {
  Index places = n * out_h * out_w;
  for (Index i = first(); i < channels * places; i += step()) {
    Index c = i / places, place = i - c * places;
    Index rest = place / out_w, ow = place - rest * out_w, image = rest / out_h;
    Index top = (rest - image * out_h) * stride_h - pad_h, left = ow * stride_w - pad_w;
    const T* from = x + (image * channels + c) * height * width;
    T* to = columns + c * kernel_h * kernel_w * places + place;
    for (Index k = 0; k < kernel_h; k++) {
      Index h = top + k * dilation_h;
      for (Index l = 0; l < kernel_w; l++, to += places) {
        Index w = left + l * dilation_w;
        bool inside = h >= 0 && h < height && w >= 0 && w < width;
        *to = inside ? from[h * width + w] : (T)0.0f;
      }
    }
  }
}

// The adjoint: x = the sum, over all windows, of what each puts there, plus the channel's bias if
// there is one. A thread gathers one entry of x.
extern "C" __global__ void col2im(
    const T* __restrict__ columns, const T* __restrict__ bias, T* __restrict__ x, Index n,
    Index channels, Index height, Index width, Index kernel_h, Index kernel_w, Index out_h,
    Index out_w, Index stride_h, Index stride_w, Index pad_h, Index pad_w, Index dilation_h,
    Index dilation_w) {
  Index places = n * out_h * out_w;
  for (Index i = first(); i < n * channels * height * width; i += step()) {
    Index row = i / width, w = i - row * width + pad_w, plane = row / height;
    Index h = row - plane * height + pad_h, image = plane / channels, c = plane - image * channels;
    A total = bias ? (A)bias[c] : (A)0;
    for (Index k = 0; k < kernel_h; k++) {
      Index top = h - k * dilation_h, oh = top / stride_h;
      if (top < 0 || oh * stride_h != top || oh >= out_h) continue;
      for (Index l = 0; l < kernel_w; l++) {
        Index left = w - l * dilation_w, ow = left / stride_w;
        if (left < 0 || ow * stride_w != left || ow >= out_w) continue;
        Index line = (c * kernel_h + k) * kernel_w + l;
        total += (A)columns[line * places + (image * out_h + oh) * out_w + ow];
      }
    }
    x[i] = (T)total;
  }
}

// y (n, channels, places) = rows (channels, n, places), plus the channel's bias if there is one.
// A block has blockDim.x threads for the places of a channel of an image.
extern "C" __global__ void to_images(
    const T* __restrict__ rows, const T* __restrict__ bias, T* __restrict__ y, Index n,
    Index channels, Index places) {
  for (Index row = first_row(); row < n * channels; row += row_step()) {
    Index image = row / channels, c = row - image * channels;
    const T* from = rows + (c * n + image) * places;
    A b = bias ? (A)bias[c] : (A)0;
    for (Index i = threadIdx.x; i < places; i += blockDim.x)
      y[row * places + i] = bias ? (T)((A)from[i] + b) : from[i];
  }
}

// rows (channels, n, places) = y (n, channels, places)
extern "C" __global__ void from_images(
    const T* __restrict__ y, T* __restrict__ rows, Index n, Index channels, Index places) {
  for (Index row = first_row(); row < n * channels; row += row_step()) {
    Index image = row / channels, c = row - image * channels;
    T* to = rows + (c * n + image) * places;
    for (Index i = threadIdx.x; i < places; i += blockDim.x) to[i] = y[row * places + i];
  }
}
