#include "common.cuh"

// x (n, channels, places): a row is a group of an image, `each` channels and their places. All is
// computed from x less the row's first entry, as in batch norm; means are less it too.

__device__ inline A pivot(const T* __restrict__ row) {
  A v = (A)*row;
  return v - v == 0 ? v : (A)0;
}

// y = gamma h + beta, h = (x - mean) inv over a row, inv = 1 / sqrt(var + eps). gamma and beta have
// an entry for each channel, or are null.
extern "C" __global__ void group_norm(
    const T* __restrict__ x, const T* __restrict__ gamma, const T* __restrict__ beta,
    T* __restrict__ y, A* __restrict__ means, A* __restrict__ inverses, Index rows, Index groups,
    Index each_group, Index places, double eps) {
  __shared__ A part[32];
  int n = (int)(each_group * places);
  for (Index row = first_row(); row < rows; row += row_step()) {
    const T* at = x + row * n;
    int c = (int)(row % groups * each_group);
    A total = 0, squares = 0, base = pivot(at);
    each(at, n, [&](int, A v) { total += v - base; });
    A mean = over_row(total, part, Add()) / n;
    each(at, n, [&](int, A v) { squares += (v - base - mean) * (v - base - mean); });
    A inv = 1 / sqrt(over_row(squares, part, Add()) / n + (A)eps);
    map(at, y + row * n, n, [&](int j, A v) {
      A h = (v - base - mean) * inv;
      if (gamma) h *= (A)gamma[c + j / (int)places];
      return beta ? h + (A)beta[c + j / (int)places] : h;
    });
    if (threadIdx.x == 0) {
      means[row] = mean;
      inverses[row] = inv;
    }
  }
}

// dx = inv (g - mean of g - h mean of g h), g = gamma dy
extern "C" __global__ void group_norm_slope(
    const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ gamma,
    const A* __restrict__ means, const A* __restrict__ inverses, T* __restrict__ dx, Index rows,
    Index groups, Index each_group, Index places) {
  __shared__ A part[32];
  int n = (int)(each_group * places);
  for (Index row = first_row(); row < rows; row += row_step()) {
    const T *d = dy + row * n, *at = x + row * n;
    int c = (int)(row % groups * each_group);
    A mean = means[row], inv = inverses[row], base = pivot(at), shift = 0, along = 0;
    each(d, at, n, [&](int j, A a, A v) {
      A g = gamma ? a * (A)gamma[c + j / (int)places] : a;
      shift += g;
      along += g * ((v - base - mean) * inv);
    });
    shift = over_row(shift, part, Add()) / n;
    along = over_row(along, part, Add()) / n;
    map(d, at, dx + row * n, n, [&](int j, A a, A v) {
      A g = gamma ? a * (A)gamma[c + j / (int)places] : a;
      return inv * (g - shift - (v - base - mean) * inv * along);
    });
  }
}

// out (chunks, channels): sums of dy h over chunks of a channel's n places entries, the gradient of
// gamma. Blocks go along the channels in x, along the chunks in y.
extern "C" __global__ void group_norm_scale_sums(
    const T* __restrict__ dy, const T* __restrict__ x, const A* __restrict__ means,
    const A* __restrict__ inverses, A* __restrict__ out, Index n, Index groups, Index each_group,
    Index places) {
  __shared__ A part[32];
  int c = blockIdx.x, channels = (int)(groups * each_group), size = (int)places;
  Index count = n * places, chunk = (count + gridDim.y - 1) / gridDim.y;
  Index from = blockIdx.y * chunk, to = from + chunk < count ? from + chunk : count;
  A total = 0;
  for (Index k = from + threadIdx.x; k < to; k += blockDim.x) {
    int i = (int)k / size, row = i * (int)groups + c / (int)each_group;
    int at = (i * channels + c) * size + (int)k % size;
    A base = pivot(x + (Index)row * each_group * places);
    total += (A)dy[at] * (((A)x[at] - base - means[row]) * inverses[row]);
  }
  total = over_row(total, part, Add());
  if (threadIdx.x == 0) out[blockIdx.y * channels + c] = total;
}
