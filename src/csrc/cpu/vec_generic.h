// Vectors of 16 bytes in the compiler's own vector types (GCC, clang): SSE2, NEON, or whatever the target has.
//
// Each vec_*.h gives the loops the same vocabulary: Float and Double, comparison masks, and
//   bits, mask_from_bits   a mask as an integer, lane 0 in bit 0, and back
//   sign_or_nan            where the sign bit is set or the lane is a NaN
//   load, store, stream    of any element type; stream goes around the cache where the machine can, and is aligned
//   widen                  a Float as one Double, halves added; sum_of_lanes; add_to(sums, a): sums[i] += a[i]
#pragma once

#include "half.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace leaky_ext::cpu::baseline {

constexpr int kUnroll = 1;  // conversions of halves in software are long

typedef float Floats __attribute__((vector_size(16)));
typedef double Doubles __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
typedef int64_t Longs __attribute__((vector_size(16)));

template <typename T, typename Vector, typename Integers>
struct Vec {
  using Scalar = T;
  static constexpr int kLanes = 16 / sizeof(T);
  struct Mask {
    Integers m;
  };

  Vector v;
  Vec() = default;
  Vec(Vector value) : v(value) {}
  explicit Vec(T value) : v(value - Vector{}) {}

  friend LEAKY_HD Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  friend LEAKY_HD Vec operator/(Vec a, Vec b) { return a.v / b.v; }
  friend LEAKY_HD Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  friend LEAKY_HD Mask operator>=(Vec a, Vec b) { return {a.v >= b.v}; }
  friend LEAKY_HD Mask operator<(Vec a, Vec b) { return {a.v < b.v}; }
  friend LEAKY_HD Mask operator!(Mask a) { return {~a.m}; }
  friend LEAKY_HD Vec select(Mask condition, Vec a, Vec b) { return condition.m ? a.v : b.v; }
  friend LEAKY_HD Mask sign_or_nan(Vec a) { return {(bit_cast<Integers>(a.v) < 0) | (a.v != a.v)}; }
  friend LEAKY_HD Mask mask_from_bits(Vec, uint64_t b) {
    Mask result;
    for (int i = 0; i < kLanes; ++i) result.m[i] = -int(b >> i & 1);
    return result;
  }
};

using Float = Vec<float, Floats, Ints>;
using Double = Vec<double, Doubles, Longs>;

LEAKY_HD uint64_t bits(Float::Mask a) {
#if defined(__SSE2__)
  return uint32_t(_mm_movemask_ps(bit_cast<__m128>(a.m)));
#else
  return uint64_t((a.m[0] & 1) | (a.m[1] & 2) | (a.m[2] & 4) | (a.m[3] & 8));
#endif
}
LEAKY_HD uint64_t bits(Double::Mask a) { return uint64_t((a.m[0] & 1) | (a.m[1] & 2)); }

LEAKY_HD Float load(const float* p) {
  Float a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
LEAKY_HD Double load(const double* p) {
  Double a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
template <typename T>
LEAKY_HD Float load(const T* p) {
  return Floats{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
}

LEAKY_HD void store(float* p, Float a) { std::memcpy(p, &a, sizeof a); }
LEAKY_HD void store(double* p, Double a) { std::memcpy(p, &a, sizeof a); }
LEAKY_HD void store(Half* p, Float a) {
  for (int i = 0; i < 4; ++i) p[i] = to_half(a.v[i]);
}
LEAKY_HD void store(BFloat16* p, Float a) {
  for (int i = 0; i < 4; ++i) p[i] = to_bfloat16(a.v[i]);
}

template <typename T, typename V>
LEAKY_HD void stream(T* p, V a) {
  store(p, a);
}
#if defined(__SSE2__)
LEAKY_HD void stream(float* p, Float a) { _mm_stream_ps(p, bit_cast<__m128>(a.v)); }
LEAKY_HD void stream(double* p, Double a) { _mm_stream_pd(p, bit_cast<__m128d>(a.v)); }
#endif

LEAKY_HD double sum_of_lanes(Double a) { return a.v[0] + a.v[1]; }
LEAKY_HD Double widen(Double a) { return a; }
LEAKY_HD Double widen(Float a) {
  return Doubles{double(a.v[0]), double(a.v[1])} + Doubles{double(a.v[2]), double(a.v[3])};
}
LEAKY_HD void add_to(double* sums, Double a) { store(sums, load(sums) + a); }
LEAKY_HD void add_to(double* sums, Float a) {
  for (int i = 0; i < 4; ++i) sums[i] += a.v[i];
}

}  // namespace leaky_ext::cpu::baseline
