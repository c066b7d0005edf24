#include "common.cuh"
#include "columns.cuh"

// Arrays (n, channels, places), of fewer than 2^31 entries. Statistics of a channel come in two
// launches: partial ones over chunks of its n places entries, then all of them together.
//
// All is computed from x less the channel's first entry, which is near the mean where that is large:
// so a mean of 10000 costs no digits of values that differ by 1. `mean` is less that entry too.

__device__ inline A pivot(const T* __restrict__ x, Index c, Index places) {
  A v = (A)x[c * places];
  return v - v == 0 ? v : (A)0;
}

// means and squares (chunks, channels): the mean of a chunk, and the sum of squares less it
extern "C" __global__ void chunk_moments(
    const T* __restrict__ x, A* __restrict__ means, A* __restrict__ squares, Index n,
    Index channels, Index places) {
  __shared__ A part[256];
  Chunk chunk = chunk_of(n * places, channels);
  A total = 0, square = 0, base = pivot(x, chunk.c, places);
  for (Index k = chunk.from; k < chunk.to; k += chunk.step)
    total += (A)x[entry(k, chunk.c, channels, places)] - base;
  A mean = over_chunk(total, part) / (A)(chunk.count > 0 ? chunk.count : 1);
  for (Index k = chunk.from; k < chunk.to; k += chunk.step) {
    A e = (A)x[entry(k, chunk.c, channels, places)] - base - mean;
    square += e * e;
  }
  square = over_chunk(square, part);
  if (chunk.first) {
    means[blockIdx.y * channels + chunk.c] = mean;
    squares[blockIdx.y * channels + chunk.c] = square;
  }
}

// mean and inv = 1 / sqrt(var + eps) of each channel; mean_out and var_out as they are stored
extern "C" __global__ void moments(
    const T* __restrict__ x, const A* __restrict__ means, const A* __restrict__ squares,
    A* __restrict__ mean, A* __restrict__ inv, T* __restrict__ mean_out, T* __restrict__ var_out,
    Index chunks, Index channels, Index places, Index count, double eps) {
  Index length = (count + chunks - 1) / chunks;
  for (Index c = first(); c < channels; c += step()) {
    A total = 0, square = 0;
    for (Index k = 0; k < chunks; k++) {
      Index rest = count - k * length;
      total += means[k * channels + c] * (A)(rest < 0 ? 0 : rest < length ? rest : length);
    }
    A centre = total / (A)count;
    for (Index k = 0; k < chunks; k++) {
      Index rest = count - k * length;
      A e = means[k * channels + c] - centre;
      square += squares[k * channels + c];
      square += e * e * (A)(rest < 0 ? 0 : rest < length ? rest : length);
    }
    A var = square / (A)count;
    mean[c] = centre;
    inv[c] = 1 / sqrt(var + (A)eps);
    mean_out[c] = (T)(pivot(x, c, places) + centre);
    var_out[c] = (T)var;
  }
}

// y = gamma (x - mean) inv + beta. A block has blockDim.x threads for the places of a channel.
extern "C" __global__ void batch_norm(
    const T* __restrict__ x, const T* __restrict__ gamma, const T* __restrict__ beta,
    const A* __restrict__ mean, const A* __restrict__ inv, T* __restrict__ y, Index n,
    Index channels, Index places) {
  for (Index row = first_row(); row < n * channels; row += row_step()) {
    int c = (int)row % (int)channels;
    A base = pivot(x, c, places), centre = mean[c], factor = inv[c];
    A scale = gamma ? (A)gamma[c] : (A)1, shift = beta ? (A)beta[c] : (A)0;
    map(x + row * places, y + row * places, (int)places,
        [&](int, A v) { return (v - base - centre) * factor * scale + shift; });
  }
}

// sums and along (chunks, channels): the sums of dy and of dy h over chunks
extern "C" __global__ void slope_sums(
    const T* __restrict__ dy, const T* __restrict__ x, const A* __restrict__ mean,
    const A* __restrict__ inv, A* __restrict__ sums, A* __restrict__ along, Index n,
    Index channels, Index places) {
  __shared__ A part[256];
  Chunk chunk = chunk_of(n * places, channels);
  A total = 0, product = 0, centre = mean[chunk.c], factor = inv[chunk.c];
  A base = pivot(x, chunk.c, places);
  for (Index k = chunk.from; k < chunk.to; k += chunk.step) {
    Index i = entry(k, chunk.c, channels, places);
    total += (A)dy[i];
    product += (A)dy[i] * (((A)x[i] - base - centre) * factor);
  }
  total = over_chunk(total, part);
  product = over_chunk(product, part);
  if (chunk.first) {
    sums[blockIdx.y * channels + chunk.c] = total;
    along[blockIdx.y * channels + chunk.c] = product;
  }
}

// dbeta and dgamma: the sums over all chunks, also as they are stored
extern "C" __global__ void slope_totals(
    const A* __restrict__ sums, const A* __restrict__ along, A* __restrict__ sum,
    A* __restrict__ product, T* __restrict__ dbeta, T* __restrict__ dgamma, Index chunks,
    Index channels) {
  for (Index c = first(); c < channels; c += step()) {
    A a = 0, b = 0;
    for (Index k = 0; k < chunks; k++) {
      a += sums[k * channels + c];
      b += along[k * channels + c];
    }
    sum[c] = a;
    product[c] = b;
    dbeta[c] = (T)a;
    dgamma[c] = (T)b;
  }
}

// dx = gamma inv (dy - sum / count - h product / count) + (dmean + dvar 2 h / inv) / count
extern "C" __global__ void batch_norm_slope(
    const T* __restrict__ dy, const T* __restrict__ x, const T* __restrict__ gamma,
    const A* __restrict__ mean, const A* __restrict__ inv, const A* __restrict__ sum,
    const A* __restrict__ product, const T* __restrict__ dmean, const T* __restrict__ dvar,
    T* __restrict__ dx, Index n, Index channels, Index places) {
  A count = (A)(n * places);
  for (Index row = first_row(); row < n * channels; row += row_step()) {
    int c = (int)row % (int)channels;
    A base = pivot(x, c, places), centre = mean[c], factor = inv[c];
    A scale = gamma ? (A)gamma[c] : (A)1;
    A shift = sum[c] / count, tilt = product[c] / count;
    A to_mean = (A)dmean[c] / count, to_var = 2 * (A)dvar[c] / count;
    map(dy + row * places, x + row * places, dx + row * places, (int)places, [&](int, A d, A v) {
      A centred = v - base - centre, h = centred * factor;
      return scale * factor * (d - shift - h * tilt) + to_mean + to_var * centred;
    });
  }
}
