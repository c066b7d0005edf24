// What a CUDA source finds here in place of CUDA: the stand-ins of ../cuda, half and bfloat16 from
// CUDA's own headers, and entries by which the driver calls its kernels.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __constant__
#undef __shared__
#define dim3 emulated_dim3  // CUDA's headers have one already
#define atomicAdd emulated_add
#define atomicMax emulated_max
#define atomicCAS emulated_cas
#include "../cuda/shim.hpp"
#undef dim3
#undef atomicAdd
#undef atomicMax
#undef atomicCAS

#include <algorithm>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <utility>

using std::abs, std::ceil, std::copysign, std::exp, std::expm1, std::fabs, std::floor, std::fmod,
    std::hypot, std::isfinite, std::isinf, std::isnan, std::log, std::log1p, std::nextafter,
    std::pow, std::signbit, std::sqrt, std::tanh;

// Only those that CUDA has: CuPy brings others, which must not be ambiguous.
#define EMULATED_ADD(V) \
  static inline V atomicAdd(V* p, V v) { return emulated_add(p, v); }
#define EMULATED_COMPARE(V)                                              \
  static inline V atomicMax(V* p, V v) { return emulated_max(p, v); }    \
  static inline V atomicCAS(V* p, V e, V v) { return emulated_cas(p, e, v); }
EMULATED_ADD(float)
EMULATED_ADD(double)
EMULATED_ADD(int)
EMULATED_ADD(unsigned)
EMULATED_ADD(unsigned long long)
EMULATED_COMPARE(int)
EMULATED_COMPARE(unsigned)
EMULATED_COMPARE(unsigned long long)
static inline __half atomicAdd(__half* p, __half v) {
  __half old = *p;
  *p = __float2half(__half2float(old) + __half2float(v));
  return old;
}
static inline __nv_bfloat16 atomicAdd(__nv_bfloat16* p, __nv_bfloat16 v) {
  __nv_bfloat16 old = *p;
  *p = __float2bfloat16(__bfloat162float(old) + __bfloat162float(v));
  return old;
}

template <class To, class From> static inline To emulated_bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "");
  To bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}
static inline float __int_as_float(int v) { return emulated_bits<float>(v); }
static inline int __float_as_int(float v) { return emulated_bits<int>(v); }
static inline unsigned __float_as_uint(float v) { return emulated_bits<unsigned>(v); }
static inline long long __double_as_longlong(double v) { return emulated_bits<long long>(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }

namespace emu {

template <auto F> struct Packed;
template <class... P, void (*F)(P...)> struct Packed<F> {
  typedef std::tuple<std::remove_cv_t<P>...> Held;
  template <size_t... I> static Held* made(void** a, std::index_sequence<I...>) {
    return new Held(*(std::remove_cv_t<P>*)a[I]...);
  }
  static size_t count() { return sizeof...(P); }
  static Held* pack(void** a) { return made(a, std::index_sequence_for<P...>()); }
  static void drop(void* held) { delete (Held*)held; }
  static void call(void** held) { std::apply(F, *(Held*)held); }
};

}  // namespace emu

#define EMULATED_VISIBLE extern "C" __attribute__((visibility("default")))
#define EMULATED_KERNEL(name, F)                                                         \
  EMULATED_VISIBLE size_t count_##name() { return emu::Packed<F>::count(); }             \
  EMULATED_VISIBLE void* pack_##name(void** a) { return emu::Packed<F>::pack(a); }       \
  EMULATED_VISIBLE void drop_##name(void* held) { emu::Packed<F>::drop(held); }          \
  EMULATED_VISIBLE int run_##name(emu::Launch* l, void* held) {                          \
    return emu::launch(*l, emu::Packed<F>::call, (void**)held);                          \
  }
