// Sums over the entries of channels, always in the same order. Arrays are (n, channels, places); a
// matrix is one of one place, its columns are the channels.

// This thread's part of a chunk of channel c: the entries from, from + step, ... before `to`. `first`
// writes what comes of the chunk, of `count` entries. Blocks go along the channels in x, along the
// entries of each in y. A block is one row of threads for a channel; or, where channels lie side by
// side (places is 1), 32 by 8 threads for 32 of them.
struct Chunk {
  Index c, from, to, step, count;
  bool first;
};

__device__ inline Chunk chunk_of(Index entries, Index channels) {
  Index length = (entries + gridDim.y - 1) / gridDim.y, from = blockIdx.y * length;
  if (from > entries) from = entries;
  Index to = from + length < entries ? from + length : entries, count = to - from;
  if (blockDim.y == 1)
    return {blockIdx.x, from + threadIdx.x, to, blockDim.x, count, threadIdx.x == 0};
  Index c = (Index)blockIdx.x * 32 + threadIdx.x;
  if (c >= channels) return {0, 0, 0, 8, 0, false};
  return {c, from + threadIdx.y, to, 8, count, threadIdx.y == 0};
}

// Of entry k of channel c the place in memory. Where places is not 1, there are fewer than 2^31 k.
__device__ inline Index entry(Index k, Index c, Index channels, Index places) {
  if (places == 1) return k * channels + c;
  int i = (int)k / (int)places;
  return (i * channels + c) * places + ((int)k - i * (int)places);
}

// The sum of v over the threads of a channel, in each of them.   part: shared, 256 entries
__device__ inline A over_chunk(A v, A* part) {
  if (blockDim.y == 1) return over_row(v, part, Add());
  part[threadIdx.y * 32 + threadIdx.x] = v;
  __syncthreads();
  v = part[threadIdx.x];
  for (int k = 1; k < 8; k++) v += part[k * 32 + threadIdx.x];
  __syncthreads();  // until then others read what the next call writes
  return v;
}

// out (chunks, channels) = the sums of value(k, c, at) over chunks: entry k of channel c lies at `at`
template <class F>
__device__ void sum_channels(Index n, Index channels, Index places, A* out, F value) {
  __shared__ A part[256];
  Chunk chunk = chunk_of(n * places, channels);
  A total = 0;
  for (Index k = chunk.from; k < chunk.to; k += chunk.step)
    total += value(k, chunk.c, entry(k, chunk.c, channels, places));
  total = over_chunk(total, part);
  if (chunk.first) out[blockIdx.y * channels + chunk.c] = total;
}
