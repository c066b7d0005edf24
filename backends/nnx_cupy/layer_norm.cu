#include "common.cuh"
#include "columns.cuh"

// y = gamma h + beta, h = (x - mean) inv over a row, inv = 1 / sqrt(var + eps). gamma and beta are
// of a row's length, or null.
extern "C" __global__ void layer_norm(
    const T* __restrict__ x, const T* __restrict__ gamma, const T* __restrict__ beta,
    T* __restrict__ y, A* __restrict__ means, A* __restrict__ inverses, Index rows, Index columns,
    double eps) {
  __shared__ A part[32];
  int n = (int)columns;
  for (Index row = first_row(); row < rows; row += row_step()) {
    const T* at = x + row * columns;
    A total = 0, squares = 0;
    each(at, n, [&](int, A v) { total += v; });
    A mean = over_row(total, part, Add()) / n;
    each(at, n, [&](int, A v) { squares += (v - mean) * (v - mean); });
    A inv = 1 / sqrt(over_row(squares, part, Add()) / n + (A)eps);
    map(at, y + row * columns, n, [&](int j, A v) {
      A h = (v - mean) * inv;
      if (gamma) h *= (A)gamma[j];
      return beta ? h + (A)beta[j] : h;
    });
    if (threadIdx.x == 0) {
      means[row] = mean;
      inverses[row] = inv;
    }
  }
}

// dx = inv (g - mean of g - h mean of g h), g = gamma dy
extern "C" __global__ void layer_norm_slope(
    const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ gamma,
    const A* __restrict__ means, const A* __restrict__ inverses, T* __restrict__ dx, Index rows,
    Index columns) {
  __shared__ A part[32];
  int n = (int)columns;
  for (Index row = first_row(); row < rows; row += row_step()) {
    const T *d = dy + row * columns, *at = x + row * columns;
    A mean = means[row], inv = inverses[row], shift = 0, along = 0;
    each(d, at, n, [&](int j, A a, A v) {
      A g = gamma ? a * (A)gamma[j] : a;
      shift += g;
      along += g * ((v - mean) * inv);
    });
    shift = over_row(shift, part, Add()) / n;
    along = over_row(along, part, Add()) / n;
    map(d, at, dx + row * columns, n, [&](int j, A a, A v) {
      A g = gamma ? a * (A)gamma[j] : a;
      return inv * (g - shift - (v - mean) * inv * along);
    });
  }
}

// out: the sums of dy h over chunks of rows, by column: the gradient of gamma. That of beta are the
// sums of dy.
extern "C" __global__ void layer_norm_scale_sums(
    const T* __restrict__ dy, const T* __restrict__ x, const A* __restrict__ means,
    const A* __restrict__ inverses, A* __restrict__ out, Index rows, Index columns) {
  __shared__ A part[8][32];
  sum_columns(rows, columns, part, out, [&](Index row, Index j) {
    Index i = row * columns + j;
    return (A)dy[i] * (((A)x[i] - means[row]) * inverses[row]);
  });
}
