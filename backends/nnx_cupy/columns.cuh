// Sums over the rows of matrices, always in the same order.

// out[j] = the sum of value(i, j) over the block's part of the rows i. A block has 32 by 8
// threads; blocks go along the columns in x, along the rows in y, with a row of `out` for each.
// part: shared
template <class F>
__device__ void sum_columns(Index rows, Index columns, A (*part)[32], A* out, F value) {
  Index j = (Index)blockIdx.x * 32 + threadIdx.x;
  Index chunk = (rows + gridDim.y - 1) / gridDim.y;
  Index from = blockIdx.y * chunk, to = from + chunk < rows ? from + chunk : rows;
  A total = 0;
  if (j < columns)
    for (Index i = from + threadIdx.y; i < to; i += 8) total += value(i, j);
  part[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y == 0 && j < columns) {
    for (int k = 1; k < 8; k++) total += part[k][threadIdx.x];
    out[blockIdx.y * columns + j] = total;
  }
}
