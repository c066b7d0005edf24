// CUDA C++ for g++: what a kernel's source finds in place of CUDA's own headers. See README.md.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __constant__ static
#define __shared__ static __attribute__((section("emu_shared")))
#define EMU_PLAIN __attribute__((noinline, no_sanitize_thread))

struct dim3 {
  unsigned x, y, z;
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emu {

struct Region {  // memory that a kernel is given
  char* start;
  size_t bytes;
  int item;
  const char* name;
};
struct Launch {
  unsigned grid[3], block[3];
  size_t shared;
  int reverse, regions;
  const Region* region;
  char* message;  // 400 bytes: what went wrong
  int atomics;    // out: whether there were any
};

int launch(Launch& l, void (*call)(void**), void** args);
void barrier(int line);
bool barrier_any(int line, bool vote);
void warp(int line, unsigned mask, const void* mine, void* out, int size, int source);
unsigned ballot(int line, unsigned mask, bool vote);
void atomic(void* p, int size);
int lane();
char* dynamic();

template <class V> V shuffled(int line, unsigned mask, V v, int source) {
  static_assert(sizeof(V) <= 16, "");
  V out;
  warp(line, mask, &v, &out, sizeof v, source);
  return out;
}

// What a parameter is: "r" or "w" (memory that is read, or written) and its dtype; "n", "x" numbers.
template <class V> struct Kind;
#define EMU_KIND(V, name)                                              \
  template <> struct Kind<const V*> { static constexpr auto is = "r " name; }; \
  template <> struct Kind<V*> { static constexpr auto is = "w " name; };
EMU_KIND(float, "float32")
EMU_KIND(double, "float64")
EMU_KIND(int, "int32")
EMU_KIND(unsigned, "uint32")
EMU_KIND(long long, "int64")
EMU_KIND(unsigned long long, "uint64")
EMU_KIND(unsigned char, "uint8")
template <> struct Kind<long long> { static constexpr auto is = "n"; };
template <> struct Kind<double> { static constexpr auto is = "x"; };

template <class... P> void describe(void (*)(P...), char* out, size_t size) {
  const char* kinds[] = {Kind<P>::is..., ""};
  size_t at = 0;
  for (size_t i = 0; i < sizeof...(P); i++)
    at += snprintf(out + at, size - at, "%s%s", i ? "," : "", kinds[i]);
}

template <size_t... I> struct Places {};
template <size_t N, size_t... I> struct Count : Count<N - 1, N - 1, I...> {};
template <size_t... I> struct Count<0, I...> { typedef Places<I...> type; };
template <class... P, size_t... I> EMU_PLAIN void apply(void (*f)(P...), void** a, Places<I...>) {
  f(*(P*)a[I]...);
}
template <auto F> struct Caller;
template <class... P, void (*F)(P...)> struct Caller<F> {
  static void call(void** a) { apply(F, a, typename Count<sizeof...(P)>::type()); }
};

}  // namespace emu

#define __syncthreads() emu::barrier(__LINE__)
#define __syncthreads_or(p) emu::barrier_any(__LINE__, p)
#define __syncwarp(...) emu::ballot(__LINE__, 0xffffffffu, false)
#define __shfl_sync(m, v, s) emu::shuffled(__LINE__, m, v, s)
#define __shfl_xor_sync(m, v, o) emu::shuffled(__LINE__, m, v, emu::lane() ^ (o))
#define __shfl_down_sync(m, v, o) emu::shuffled(__LINE__, m, v, emu::lane() + (o))
#define __shfl_up_sync(m, v, o) emu::shuffled(__LINE__, m, v, emu::lane() - (int)(o))
#define __ballot_sync(m, p) emu::ballot(__LINE__, m, p)
#define __any_sync(m, p) (emu::ballot(__LINE__, m, p) != 0)
#define __all_sync(m, p) (emu::ballot(__LINE__, m, !(p)) == 0)

template <class V> EMU_PLAIN V atomicAdd(V* p, V v) {
  emu::atomic(p, sizeof v);
  V old = *p;
  *p = old + v;
  return old;
}
template <class V> EMU_PLAIN V atomicMax(V* p, V v) {
  emu::atomic(p, sizeof v);
  V old = *p;
  *p = old > v ? old : v;
  return old;
}
template <class V> EMU_PLAIN V atomicCAS(V* p, V expected, V v) {
  emu::atomic(p, sizeof v);
  V old = *p;
  if (old == expected) *p = v;
  return old;
}
template <class V> V __ldg(const V* p) { return *p; }
static inline double __longlong_as_double(long long v) {
  double d;
  memcpy(&d, &v, sizeof d);
  return d;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)(((unsigned long long)a * b) >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline float rsqrt(float v) { return 1 / sqrt(v); }
static inline double rsqrt(double v) { return 1 / sqrt(v); }
static inline void __threadfence() {}
template <class V> V max(V a, V b) { return a > b ? a : b; }
template <class V> V min(V a, V b) { return a < b ? a : b; }
