#include "common.cuh"
#include "philox.cuh"

// The upper 24 bits of a word as a number in [0, 1). Where the type is so narrow that it would round
// to 1, a number below it.
__device__ inline T unit(unsigned word) {
  T u = (T)((A)(word >> 8) * (A)5.9604644775390625e-8);
  return (A)u < 1 ? u : (T)(A)0.99609375;
}

// y = random numbers. Entries 4 i to 4 i + 3 are the words of counter (i, 0, 0) of 64, 32 and 32 bits.
// The key comes by value, or lies in device memory for a graph that is launched again.
extern "C" __global__ void uniform(
    T* __restrict__ y, const Index* __restrict__ key_at, Index key_value, Index size) {
  unsigned long long key = key_at ? *key_at : key_value;
  for (Index i = first(); i < (size + 3) / 4; i += step()) {
    Words words = {{(unsigned)i, (unsigned)((unsigned long long)i >> 32), 0u, 0u}};
    words = philox(words, (unsigned)key, (unsigned)(key >> 32));
    if (PACK == 4 && 4 * i + 3 < size && aligned(y)) {
      Pack four;
      for (int k = 0; k < 4; k++) four.v[k] = unit(words.v[k]);
      ((Pack*)y)[i] = four;
    } else {
      for (int k = 0; k < 4 && 4 * i + k < size; k++) y[4 * i + k] = unit(words.v[k]);
    }
  }
}

// NumPy's PCG64 (O'Neill, PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms
// for Random Number Generation, 2014: XSL RR 128/64): the keys that `integers(2**63)` gives.
// state: its 128-bit state and increment, low words first; it goes on from where it was
extern "C" __global__ void next_keys(
    unsigned long long* __restrict__ state, Index* __restrict__ keys, Index count) {
  if (first() != 0) return;
  const unsigned long long a0 = 0x4385DF649FCCF645ull, a1 = 0x2360ED051FC65DA4ull;
  unsigned long long s0 = state[0], s1 = state[1], c0 = state[2], c1 = state[3];
  for (Index i = 0; i < count; i++) {
    unsigned long long low = s0 * a0, high = __umul64hi(s0, a0) + s0 * a1 + s1 * a0;
    s0 = low + c0;
    s1 = high + c1 + (s0 < low);
    unsigned long long folded = s0 ^ s1;
    int turn = (int)(s1 >> 58);
    keys[i] = (Index)((folded >> turn | folded << ((64 - turn) & 63)) >> 1);
  }
  state[0] = s0;
  state[1] = s1;
}

// The words themselves, of any counter: for tests against published values.
extern "C" __global__ void words(
    const unsigned* __restrict__ counters, const unsigned* __restrict__ keys,
    unsigned* __restrict__ y, Index size) {
  for (Index i = first(); i < size; i += step()) {
    Words c = {{counters[4 * i], counters[4 * i + 1], counters[4 * i + 2], counters[4 * i + 3]}};
    c = philox(c, keys[2 * i], keys[2 * i + 1]);
    for (int k = 0; k < 4; k++) y[4 * i + k] = c.v[k];
  }
}
