#include "common.cuh"
#include "softmax.cuh"

// y = e^x / sum of e^x over a row
extern "C" __global__ void softmax(
    const T* __restrict__ x, T* __restrict__ y, Index rows, Index columns) {
  __shared__ Mass part[32];
  int n = (int)columns;
  for (Index row = first_row(); row < rows; row += row_step()) {
    Mass mass = mass_of(x + row * columns, n, part);
    A factor = 1 / mass.s;
    map(x + row * columns, y + row * columns, n, [&](int, A v) { return exp(v - mass.m) * factor; });
  }
}

// dx = (dy - sum of dy y) y
extern "C" __global__ void softmax_slope(
    const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dx, Index rows,
    Index columns) {
  __shared__ A part[32];
  int n = (int)columns;
  for (Index row = first_row(); row < rows; row += row_step()) {
    const T *d = dy + row * columns, *v = y + row * columns;
    A total = 0;
    each(d, v, n, [&](int, A a, A b) { total += a * b; });
    total = over_row(total, part, Add());
    map(d, v, dx + row * columns, n, [&](int, A a, A b) { return (a - total) * b; });
  }
}

// y = x - ln(sum of e^x over a row)
extern "C" __global__ void log_softmax(
    const T* __restrict__ x, T* __restrict__ y, Index rows, Index columns) {
  __shared__ Mass part[32];
  int n = (int)columns;
  for (Index row = first_row(); row < rows; row += row_step()) {
    Mass mass = mass_of(x + row * columns, n, part);
    A shift = log(mass.s);
    map(x + row * columns, y + row * columns, n, [&](int, A v) { return v - mass.m - shift; });
  }
}

// dx = dy - e^y sum of dy
extern "C" __global__ void log_softmax_slope(
    const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dx, Index rows,
    Index columns) {
  __shared__ A part[32];
  int n = (int)columns;
  for (Index row = first_row(); row < rows; row += row_step()) {
    const T* d = dy + row * columns;
    A total = 0;
    each(d, n, [&](int, A a) { total += a; });
    total = over_row(total, part, Add());
    map(d, y + row * columns, dx + row * columns, n,
        [&](int, A a, A b) { return a - exp(b) * total; });
  }
}
