#include "common.cuh"
#include "columns.cuh"

// x (n, channels, places): a row is a group of an image, `each_group` channels and their places. In
// layer norm it is all of n, of places 1: gamma and beta have an entry for each of the row's then.
// All is computed from x less the row's first entry, as in batch norm; means are less it too.

__device__ inline A pivot(const T* __restrict__ row) {
  A v = (A)*row;
  return v - v == 0 ? v : (A)0;
}

// Of entry j of a row the channel in its group.
__device__ inline int channel(int j, Index places) { return places == 1 ? j : j / (int)places; }

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
      if (gamma) h *= (A)gamma[c + channel(j, places)];
      return beta ? h + (A)beta[c + channel(j, places)] : h;
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
      A g = gamma ? a * (A)gamma[c + channel(j, places)] : a;
      shift += g;
      along += g * ((v - base - mean) * inv);
    });
    shift = over_row(shift, part, Add()) / n;
    along = over_row(along, part, Add()) / n;
    map(d, at, dx + row * n, n, [&](int j, A a, A v) {
      A g = gamma ? a * (A)gamma[c + channel(j, places)] : a;
      return inv * (g - shift - (v - base - mean) * inv * along);
    });
  }
}

// out: the sums of dy h by channel, over chunks: the gradient of gamma. That of beta are those of dy.
extern "C" __global__ void group_norm_scale_sums(
    const T* __restrict__ dy, const T* __restrict__ x, const A* __restrict__ means,
    const A* __restrict__ inverses, A* __restrict__ out, Index n, Index groups, Index each_group,
    Index places) {
  sum_channels(n, groups * each_group, places, out, [&](Index k, Index c, Index at) {
    Index i = places == 1 ? k : (int)k / (int)places, row = i * groups + (int)c / (int)each_group;
    A base = pivot(x + row * each_group * places);
    return (A)dy[at] * (((A)x[at] - base - means[row]) * inverses[row]);
  });
}
