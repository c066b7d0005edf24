#include "common.cuh"
#include "columns.cuh"

// out: the sums of x by channel, over chunks
extern "C" __global__ void channel_sums(
    const T* __restrict__ x, A* __restrict__ out, Index n, Index channels, Index places) {
  sum_channels(n, channels, places, out, [&](Index, Index, Index at) { return (A)x[at]; });
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
