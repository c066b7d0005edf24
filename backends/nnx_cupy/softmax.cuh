// The largest number of a row, and the sum of e^(x - m), in one pass.

struct Mass {
  A m, s;
};

__device__ inline Mass exchanged(Mass p, int distance) {
  Mass q;
  q.m = exchanged(p.m, distance);
  q.s = exchanged(p.s, distance);
  return q;
}

// NaN is larger than nothing: m never is NaN, s is, once one has come.
__device__ inline Mass merged(Mass p, Mass q) {
  Mass r;
  r.m = p.m > q.m ? p.m : q.m;
  A a = p.m == r.m ? p.s : p.s * exp(p.m - r.m);
  A b = q.m == r.m ? q.s : q.s * exp(q.m - r.m);
  r.s = a + b;
  return r;
}

struct Merge {
  __device__ Mass operator()(Mass p, Mass q) const { return merged(p, q); }
};

// s is NaN where a number is NaN or infinity, and where all are -infinity.
__device__ inline Mass mass_of(const T* __restrict__ x, int n, Mass* part) {
  Mass own;
  own.m = minus_infinity();
  own.s = 0;
  each(x, n, [&](int, A v) {
    if (v > own.m) {
      own.s = own.s * exp(own.m - v) + 1;
      own.m = v;
    } else {
      own.s += v == own.m ? (A)1 : exp(v - own.m);
    }
  });
  own = over_row(own, part, Merge());
  own.s += own.m - own.m;
  return own;
}
