// Philox4x32-10: Salmon, Moraes, Dror and Shaw, Parallel Random Numbers: As Easy as 1, 2, 3 (2011).

struct Words {
  unsigned v[4];
};

// Four random words, which follow from the counter and the key alone.
__device__ inline Words philox(Words counter, unsigned key0, unsigned key1) {
  for (int round = 0; round < 10; round++) {
    unsigned high0 = __umulhi(0xD2511F53u, counter.v[0]), low0 = 0xD2511F53u * counter.v[0];
    unsigned high1 = __umulhi(0xCD9E8D57u, counter.v[2]), low1 = 0xCD9E8D57u * counter.v[2];
    counter.v[0] = high1 ^ counter.v[1] ^ key0;
    counter.v[1] = low1;
    counter.v[2] = high0 ^ counter.v[3] ^ key1;
    counter.v[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}
