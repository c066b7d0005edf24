#include "common.cuh"

// Each optimizer in one pass over a parameter p, its gradient g and its state. The numbers of a step
// come by value, or in device memory for a graph that is launched again: `at` is null or where.

__device__ inline A number(const T* at, double value) { return at ? (A)*at : (A)value; }

// Calls f(p, g, s) on the values of each entry, s the state's; p and s are written back. A state that
// is null is none (arrays of no state are no C++). With a
// factor g is first multiplied by it, and written too.
template <int S, class F>
__device__ void update(T* p, T* g, T* const (&s)[S], const T* factor, Index n, F f) {
  A scale = factor ? (A)*factor : (A)1;
  auto one = [&](T& p_at, T& g_at, T* s_at) {
    if (factor) g_at = (T)((A)g_at * scale);
    A value = (A)p_at, state[S];
    for (int k = 0; k < S; k++) state[k] = (A)s_at[k];
    f(value, (A)g_at, state);
    p_at = (T)value;
    for (int k = 0; k < S; k++) s_at[k] = (T)state[k];
  };
  bool packed = aligned(p) && aligned(g);
  for (int k = 0; k < S; k++) packed = packed && aligned(s[k]);
  Index packs = packed ? n / PACK : 0;
  for (Index i = first(); i < packs; i += step()) {
    Pack ps = ((Pack*)p)[i], gs = ((Pack*)g)[i], ss[S];
    for (int k = 0; k < S; k++) ss[k] = s[k] ? ((Pack*)s[k])[i] : ps;
    for (int j = 0; j < PACK; j++) {
      T state[S];
      for (int k = 0; k < S; k++) state[k] = ss[k].v[j];
      one(ps.v[j], gs.v[j], state);
      for (int k = 0; k < S; k++) ss[k].v[j] = state[k];
    }
    ((Pack*)p)[i] = ps;
    if (factor) ((Pack*)g)[i] = gs;
    for (int k = 0; k < S; k++)
      if (s[k]) ((Pack*)s[k])[i] = ss[k];
  }
  for (Index i = packs * PACK + first(); i < n; i += step()) {
    T p_at = p[i], g_at = g[i], state[S];
    for (int k = 0; k < S; k++) state[k] = s[k] ? s[k][i] : p_at;
    one(p_at, g_at, state);
    p[i] = p_at;
    if (factor) g[i] = g_at;
    for (int k = 0; k < S; k++)
      if (s[k]) s[k][i] = state[k];
  }
}

__device__ inline A decayed(A p, A g, A weight_decay) {
  return weight_decay != 0 ? g + weight_decay * p : g;
}

__device__ inline A averaged(A before, A now, double keep) {
  return (A)keep * before + (A)(1 - keep) * now;
}

extern "C" __global__ void sgd(
    T* p, T* g, const T* factor, const T* lr_at, double lr_value, double weight_decay, Index n) {
  A lr = number(lr_at, lr_value), decay = (A)weight_decay;
  T* const none[] = {nullptr};
  update(p, g, none, factor, n, [&](A& v, A d, A*) { v -= lr * decayed(v, d, decay); });
}

extern "C" __global__ void momentum(
    T* p, T* g, T* m, const T* factor, const T* lr_at, double lr_value, const T* keep_at,
    double keep_value, double momentum, Index nesterov, double weight_decay, Index n) {
  A lr = number(lr_at, lr_value), keep = number(keep_at, keep_value);
  A along = (A)momentum, decay = (A)weight_decay;
  T* const states[] = {m};
  update(p, g, states, factor, n, [&](A& v, A d, A* s) {
    d = decayed(v, d, decay);
    s[0] = along * s[0] + keep * d;
    v -= lr * (nesterov ? d + along * s[0] : s[0]);
  });
}

extern "C" __global__ void adagrad(
    T* p, T* g, T* s, const T* factor, const T* lr_at, double lr_value, double eps,
    double weight_decay, Index n) {
  A lr = number(lr_at, lr_value), decay = (A)weight_decay;
  T* const states[] = {s};
  update(p, g, states, factor, n, [&](A& v, A d, A* s) {
    d = decayed(v, d, decay);
    s[0] += d * d;
    v -= lr * (d / (sqrt(s[0]) + (A)eps));
  });
}

extern "C" __global__ void rmsprop(
    T* p, T* g, T* v, const T* factor, const T* lr_at, double lr_value, double alpha, double eps,
    double weight_decay, Index n) {
  A lr = number(lr_at, lr_value), decay = (A)weight_decay;
  T* const states[] = {v};
  update(p, g, states, factor, n, [&](A& w, A d, A* s) {
    d = decayed(w, d, decay);
    s[0] = averaged(s[0], d * d, alpha);
    w -= lr * (d / (sqrt(s[0]) + (A)eps));
  });
}

extern "C" __global__ void rmsprop_momentum(
    T* p, T* g, T* v, T* m, const T* factor, const T* lr_at, double lr_value, double alpha,
    double eps, double weight_decay, double momentum, Index n) {
  A lr = number(lr_at, lr_value), decay = (A)weight_decay;
  T* const states[] = {v, m};
  update(p, g, states, factor, n, [&](A& w, A d, A* s) {
    d = decayed(w, d, decay);
    s[0] = averaged(s[0], d * d, alpha);
    s[1] = (A)momentum * s[1] + d / (sqrt(s[0]) + (A)eps);
    w -= lr * s[1];
  });
}

// sqrt(v - a^2), which rounding can bring below zero
__device__ inline A deviation(A v, A a) {
  A rest = v - a * a;
  return sqrt(rest < 0 ? (A)0 : rest);
}

extern "C" __global__ void rmsprop_centered(
    T* p, T* g, T* v, T* a, const T* factor, const T* lr_at, double lr_value, double alpha,
    double eps, double weight_decay, Index n) {
  A lr = number(lr_at, lr_value), decay = (A)weight_decay;
  T* const states[] = {v, a};
  update(p, g, states, factor, n, [&](A& w, A d, A* s) {
    d = decayed(w, d, decay);
    s[0] = averaged(s[0], d * d, alpha);
    s[1] += (A)(1 - alpha) * (d - s[1]);
    w -= lr * (d / (deviation(s[0], s[1]) + (A)eps));
  });
}

extern "C" __global__ void rmsprop_centered_momentum(
    T* p, T* g, T* v, T* a, T* m, const T* factor, const T* lr_at, double lr_value, double alpha,
    double eps, double weight_decay, double momentum, Index n) {
  A lr = number(lr_at, lr_value), decay = (A)weight_decay;
  T* const states[] = {v, a, m};
  update(p, g, states, factor, n, [&](A& w, A d, A* s) {
    d = decayed(w, d, decay);
    s[0] = averaged(s[0], d * d, alpha);
    s[1] += (A)(1 - alpha) * (d - s[1]);
    s[2] = (A)momentum * s[2] + d / (deviation(s[0], s[1]) + (A)eps);
    w -= lr * s[2];
  });
}

extern "C" __global__ void adam(
    T* p, T* g, T* m, T* v, const T* factor, const T* rate_at, double rate_value, const T* eps_at,
    double eps_value, double beta1, double beta2, double weight_decay, Index n) {
  A rate = number(rate_at, rate_value), eps = number(eps_at, eps_value), decay = (A)weight_decay;
  T* const states[] = {m, v};
  update(p, g, states, factor, n, [&](A& w, A d, A* s) {
    d = decayed(w, d, decay);
    s[0] = averaged(s[0], d, beta1);
    s[1] = averaged(s[1], d * d, beta2);
    w -= rate * (s[0] / (sqrt(s[1]) + eps));
  });
}

extern "C" __global__ void adamw(
    T* p, T* g, T* m, T* v, const T* factor, const T* rate_at, double rate_value, const T* eps_at,
    double eps_value, const T* shrink_at, double shrink_value, double beta1, double beta2,
    Index n) {
  A rate = number(rate_at, rate_value), eps = number(eps_at, eps_value);
  A shrink = number(shrink_at, shrink_value);
  T* const states[] = {m, v};
  update(p, g, states, factor, n, [&](A& w, A d, A* s) {
    s[0] = averaged(s[0], d, beta1);
    s[1] = averaged(s[1], d * d, beta2);
    w = shrink * w - rate * (s[0] / (sqrt(s[1]) + eps));
  });
}

extern "C" __global__ void scale(T* g, const T* factor, Index n) {
  A by = (A)*factor;
  for (Index i = first(); i < n; i += step()) g[i] = (T)((A)g[i] * by);
}

extern "C" __global__ void clip(T* g, double value, Index n) {
  A most = (A)value;
  for (Index i = first(); i < n; i += step()) {
    A v = (A)g[i];
    g[i] = (T)(v > most ? most : v < -most ? -most : v);
  }
}

// out: the sum of squares of each block's entries
extern "C" __global__ void squares(const T* __restrict__ g, A* __restrict__ out, Index n) {
  __shared__ A part[32];
  A total = 0;
  for (Index i = first(); i < n; i += step()) total += (A)g[i] * (A)g[i];
  total = over_row(total, part, Add());
  if (threadIdx.x == 0) out[blockIdx.x] = total;
}

// y = the square root of the sum of `parts`. One block.
extern "C" __global__ void grad_norm(const A* __restrict__ parts, T* __restrict__ y, Index n) {
  __shared__ A part[32];
  A total = 0;
  for (Index i = threadIdx.x; i < n; i += blockDim.x) total += parts[i];
  total = over_row(total, part, Add());
  if (threadIdx.x == 0) *y = (T)sqrt(total);
}

// What scales gradients of that norm to `most` at most. One thread.
extern "C" __global__ void factor(const T* __restrict__ norm, T* __restrict__ y, double most) {
  A by = (A)most / ((A)*norm + (A)1e-6);
  *y = (T)(by > 1 ? (A)1 : by);
}
