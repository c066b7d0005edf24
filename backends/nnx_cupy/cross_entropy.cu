#include "common.cuh"
#include "softmax.cuh"

typedef NNX_LABEL Label;  // int or long long

// losses[i] = -ln softmax(x_i)_t, d = its gradient: softmax(x_i) less 1 at t. Both are 0 where t is
// `ignored` or no class. With `mean`, d is that of the mean: each row of threads counts the t.
extern "C" __global__ void cross_entropy(
    const T* __restrict__ x, const Label* __restrict__ t, T* __restrict__ losses,
    T* __restrict__ d, Index rows, Index columns, Index ignored, Index mean) {
  __shared__ Mass part[32];
  __shared__ A counts_part[32];
  int n = (int)columns;
  A by = 1;
  if (mean) {
    A kept = 0;
    for (Index i = threadIdx.x; i < rows; i += blockDim.x) kept += t[i] != ignored;
    by /= over_row(kept, counts_part, Add());
  }
  for (Index row = first_row(); row < rows; row += row_step()) {
    const T* z = x + row * columns;
    Index label = t[row];
    bool counts = label != ignored && label >= 0 && label < columns;
    Mass mass = mass_of(z, n, part);
    A factor = 1 / mass.s;
    map(z, d + row * columns, n, [&](int j, A v) {
      T slope = (T)(counts ? exp(v - mass.m) * factor - (j == label ? 1 : 0) : (A)0);
      return (A)slope * by;
    });
    if (threadIdx.x == 0)
      losses[row] = (T)(counts ? log(mass.s) + mass.m - (A)z[label] : (A)0);
  }
}

// y = the sum of the losses, or, for the mean, that by count = how many t are not `ignored`;
// count is 1 for the sum. One block.
extern "C" __global__ void cross_entropy_total(
    const T* __restrict__ losses, const Label* __restrict__ t, T* __restrict__ y,
    A* __restrict__ count, Index rows, Index ignored, Index mean) {
  __shared__ A part[32];
  A total = 0, kept = 0;
  for (Index i = threadIdx.x; i < rows; i += blockDim.x) {
    total += (A)losses[i];
    kept += t[i] != ignored;
  }
  total = over_row(total, part, Add());
  kept = over_row(kept, part, Add());
  if (threadIdx.x == 0) {
    *count = mean ? kept : (A)1;
    *y = (T)(mean ? total / kept : total);
  }
}

// dx = d dy / count
extern "C" __global__ void cross_entropy_scaled(
    const T* __restrict__ d, const T* __restrict__ dy, const A* __restrict__ count,
    T* __restrict__ dx, Index size) {
  A factor = (A)*dy / *count;
  map_all(d, dx, size, [&](A v) { return v * factor; });
}

// dx_i = d_i dy_i, row by row
extern "C" __global__ void cross_entropy_scaled_rows(
    const T* __restrict__ d, const T* __restrict__ dy, T* __restrict__ dx, Index rows,
    Index columns) {
  for (Index row = first_row(); row < rows; row += row_step()) {
    A factor = (A)dy[row];
    map(d + row * columns, dx + row * columns, (int)columns,
        [&](int, A v) { return v * factor; });
  }
}
