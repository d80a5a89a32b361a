// Vectors of 16 bytes in the compiler's own vector types (GCC, clang): SSE2, NEON, or whatever the target has.
//
// Each vec_*.h gives the loops the same vocabulary: Float and Double, comparison masks, and
//   bits, mask_from_bits   a mask as an integer, lane 0 in bit 0, and back
//   sign_or_nan            where the sign bit is set or the lane is a NaN
//   load, store            of any element type
//   read_some, write_some  the first n elements of an array, the others 0
//   widen                  a Float as one Double, halves added; sum_of_lanes; add_to(sums, a): sums[i] += a[i]
//
// Halves<T>, a vector of 16-bit elements as bits (halves.inc), has load_bits in place of load, the masks, select, and
//   without_sign(x)          |x|
//   keep(mask, x)            x, and 0 where the mask is not set
//   to_floats(x)             the elements with even numbers, and those with odd numbers
//   to_bfloat16(pair)        back, rounded to nearest; a NaN must have zeros in its lower 16 bits
//   even_odd(a, b)           two vectors in memory order as a pair; in_order is the way back
//   mask_of_floats(mask)     a mask of bfloat16 elements as that of a pair
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
LEAKY_HD void store(float* p, Float a) { std::memcpy(p, &a, sizeof a); }
LEAKY_HD void store(double* p, Double a) { std::memcpy(p, &a, sizeof a); }
LEAKY_HD Float load(const Half* p) { return Floats{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])}; }
LEAKY_HD void store(Half* p, Float a) {
  for (int i = 0; i < 4; ++i) p[i] = to_half(a.v[i]);
}

using FloatMask = Float::Mask;

struct FloatPair {
  Float even, odd;
};

struct FloatPairMask {
  FloatMask even, odd;
};

typedef uint16_t Patterns __attribute__((vector_size(16)));
typedef int16_t Shorts __attribute__((vector_size(16)));

template <typename T>
struct Halves {
  static constexpr int kLanes = 8;
  Patterns v;
};

struct HalvesMask {
  Shorts m;
};

template <typename T>
LEAKY_HD HalvesMask sign_or_nan(Halves<T> x) {  // patterns above that of infinity
  return {x.v > T::kInfinity};
}
template <typename T>
LEAKY_HD HalvesMask negative(Halves<T> x) {
  return {(x.v > T::kInfinity) & (x.v != kSign)};
}
template <typename T>
LEAKY_HD Halves<T> relu(Halves<T> x) {  // 0 where kSign < x <= kSign | kInfinity
  return {bit_cast<Patterns>((x.v <= kSign) | (x.v > uint16_t(kSign | T::kInfinity))) & x.v};
}
template <typename T>
LEAKY_HD Halves<T> without_sign(Halves<T> x) {
  return {x.v & uint16_t(0x7fff)};
}
template <typename T>
LEAKY_HD Halves<T> select(HalvesMask condition, Halves<T> a, Halves<T> b) {
  return {condition.m ? a.v : b.v};
}
template <typename T>
LEAKY_HD Halves<T> keep(HalvesMask condition, Halves<T> a) {
  return {bit_cast<Patterns>(condition.m) & a.v};
}
LEAKY_HD uint64_t bits(HalvesMask a) {
#if defined(__SSE2__)
  return uint32_t(_mm_movemask_epi8(_mm_packs_epi16(bit_cast<__m128i>(a.m), _mm_setzero_si128())));
#else
  uint64_t result = 0;
  for (int i = 0; i < 8; ++i) result |= uint64_t(a.m[i] & 1) << i;
  return result;
#endif
}
template <typename T>
LEAKY_HD HalvesMask mask_from_bits(Halves<T>, uint64_t b) {
  const Shorts lane = {1, 2, 4, 8, 16, 32, 64, 128};
  return {((Shorts{} + int16_t(b & 0xff)) & lane) == lane};
}

template <typename T>
LEAKY_HD Halves<T> load_bits(const T* p) {
  Halves<T> a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
template <typename T>
LEAKY_HD void store(T* p, Halves<T> a) {
  std::memcpy(p, &a, sizeof a);
}

typedef uint32_t Words __attribute__((vector_size(16)));

LEAKY_HD FloatPair to_floats(Halves<BFloat16> x) {
  const Words pairs = bit_cast<Words>(x.v);
  return {bit_cast<Floats>(pairs << 16), bit_cast<Floats>(pairs & 0xffff0000u)};
}
LEAKY_HD Words rounded(Float x) {  // in the upper half
  const Words raw = bit_cast<Words>(x.v);
  return raw + 0x7fff + (raw >> 16 & 1);
}
LEAKY_HD Halves<BFloat16> to_bfloat16(FloatPair x) {
  return {bit_cast<Patterns>(rounded(x.even) >> 16 | (rounded(x.odd) & 0xffff0000u))};
}
LEAKY_HD FloatPair even_odd(Float a, Float b) {
  return {Floats{a.v[0], a.v[2], b.v[0], b.v[2]}, Floats{a.v[1], a.v[3], b.v[1], b.v[3]}};
}
LEAKY_HD void in_order(FloatPair x, Float* a, Float* b) {
  *a = Floats{x.even.v[0], x.odd.v[0], x.even.v[1], x.odd.v[1]};
  *b = Floats{x.even.v[2], x.odd.v[2], x.even.v[3], x.odd.v[3]};
}
LEAKY_HD FloatPairMask mask_of_floats(HalvesMask m) {
  const Ints pairs = bit_cast<Ints>(m.m);
  return {{bit_cast<Ints>(bit_cast<Words>(pairs) << 16) >> 16}, {pairs >> 16}};
}

LEAKY_HD double sum_of_lanes(Double a) { return a.v[0] + a.v[1]; }
LEAKY_HD Double widen(Double a) { return a; }
LEAKY_HD Double widen(Float a) {
  return Doubles{double(a.v[0]), double(a.v[1])} + Doubles{double(a.v[2]), double(a.v[3])};
}
LEAKY_HD void add_to(double* sums, Double a) { store(sums, load(sums) + a); }
LEAKY_HD void add_to(double* sums, Float a) {
  for (int i = 0; i < 4; ++i) sums[i] += a.v[i];
}

#include "some.inc"

}  // namespace leaky_ext::cpu::baseline
