#include "common.cuh"
#include "columns.cuh"

// out: the sums of the columns of x over chunks of rows
extern "C" __global__ void column_sums(
    const T* __restrict__ x, A* __restrict__ out, Index rows, Index columns) {
  __shared__ A part[8][32];
  sum_columns(rows, columns, part, out, [&](Index i, Index j) { return (A)x[i * columns + j]; });
}

// y = the sums of the columns of `parts`, added up in order
extern "C" __global__ void column_totals(
    const A* __restrict__ parts, T* __restrict__ y, Index rows, Index columns) {
  for (Index j = first(); j < columns; j += step()) {
    A total = 0;
    for (Index i = 0; i < rows; i++) total += parts[i * columns + j];
    y[j] = (T)total;
  }
}

// out (chunks, channels): sums of x (n, channels, places) by channel. Blocks go along the channels in
// x, along the n places of a channel in y, fewer than 2^31; a block is one row of threads.
extern "C" __global__ void channel_sums(
    const T* __restrict__ x, A* __restrict__ out, Index n, Index channels, Index places) {
  __shared__ A part[32];
  Index c = blockIdx.x, count = n * places, chunk = (count + gridDim.y - 1) / gridDim.y;
  Index from = blockIdx.y * chunk, to = from + chunk < count ? from + chunk : count;
  A total = 0;
  for (Index k = from + threadIdx.x; k < to; k += blockDim.x) {
    int i = (int)k / (int)places;
    total += (A)x[(i * channels + c) * places + (k - i * places)];
  }
  total = over_row(total, part, Add());
  if (threadIdx.x == 0) out[blockIdx.y * channels + c] = total;
}
