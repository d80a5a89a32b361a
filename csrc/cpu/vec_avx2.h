// Vectors of 32 bytes, AVX2 with F16C. See vec_generic.h for what each function means.
#pragma once

#include <immintrin.h>

#include "half.h"

namespace leaky_ext::cpu::avx2 {

constexpr int kUnroll = 8;

struct Float {
  using Scalar = float;
  static constexpr int kLanes = 8;
  __m256 v;
  Float() = default;
  Float(__m256 value) : v(value) {}
  explicit Float(float value) : v(_mm256_set1_ps(value)) {}
};

struct FloatMask {
  __m256 m;
};

LEAKY_HD Float operator*(Float a, Float b) { return _mm256_mul_ps(a.v, b.v); }
LEAKY_HD Float operator/(Float a, Float b) { return _mm256_div_ps(a.v, b.v); }
LEAKY_HD Float operator+(Float a, Float b) { return _mm256_add_ps(a.v, b.v); }
LEAKY_HD FloatMask operator>=(Float a, Float b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
LEAKY_HD FloatMask operator<(Float a, Float b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
LEAKY_HD FloatMask operator!(FloatMask a) { return {_mm256_xor_ps(a.m, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
LEAKY_HD Float select(FloatMask condition, Float a, Float b) { return _mm256_blendv_ps(b.v, a.v, condition.m); }
LEAKY_HD uint64_t bits(FloatMask a) { return uint32_t(_mm256_movemask_ps(a.m)); }
LEAKY_HD FloatMask mask_from_bits(Float, uint64_t b) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i picked = _mm256_and_si256(_mm256_set1_epi32(int(b)), lane);
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(picked, lane))};
}
LEAKY_HD FloatMask sign_or_nan(Float a) { return {_mm256_or_ps(a.v, _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))}; }

LEAKY_HD Float load(const float* p) { return _mm256_loadu_ps(p); }
LEAKY_HD Float load(const Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
LEAKY_HD __m128i to_halves(Float a) { return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LEAKY_HD void store(float* p, Float a) { _mm256_storeu_ps(p, a.v); }
LEAKY_HD void store(Half* p, Float a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_halves(a)); }

struct FloatPair {
  Float even, odd;
};

struct FloatPairMask {
  FloatMask even, odd;
};

template <typename T>
struct Halves {
  static constexpr int kLanes = 16;
  __m256i v;
};

struct HalvesMask {
  __m256i m;  // 16 bits for each element, all of them set or none
};

LEAKY_HD __m256i every(int bits) { return _mm256_set1_epi16(int16_t(bits)); }

template <typename T>
LEAKY_HD HalvesMask sign_or_nan(Halves<T> x) {  // patterns above that of infinity; comparisons are signed
  return {_mm256_cmpgt_epi16(_mm256_xor_si256(x.v, every(kSign)), every(T::kInfinity ^ kSign))};
}
template <typename T>
LEAKY_HD HalvesMask negative(Halves<T> x) {  // the same but for -0.0
  return {_mm256_andnot_si256(_mm256_cmpeq_epi16(x.v, every(kSign)), sign_or_nan(x).m)};
}
template <typename T>
LEAKY_HD Halves<T> relu(Halves<T> x) {  // 0 where kSign < x <= kSign | kInfinity
  const __m256i above = _mm256_cmpgt_epi16(x.v, every(kSign));
  const __m256i no_nan = _mm256_cmpgt_epi16(every((kSign | T::kInfinity) + 1), x.v);
  return {_mm256_andnot_si256(_mm256_and_si256(above, no_nan), x.v)};
}
template <typename T>
LEAKY_HD Halves<T> without_sign(Halves<T> x) {
  return {_mm256_and_si256(x.v, every(0x7fff))};
}
template <typename T>
LEAKY_HD Halves<T> select(HalvesMask condition, Halves<T> a, Halves<T> b) {
  return {_mm256_blendv_epi8(b.v, a.v, condition.m)};
}
template <typename T>
LEAKY_HD Halves<T> keep(HalvesMask condition, Halves<T> a) {
  return {_mm256_and_si256(condition.m, a.v)};
}
LEAKY_HD uint64_t bits(HalvesMask a) {
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(a.m), _mm256_extracti128_si256(a.m, 1));
  return uint32_t(_mm_movemask_epi8(bytes));
}
template <typename T>
LEAKY_HD HalvesMask mask_from_bits(Halves<T>, uint64_t b) {
  const __m256i lane = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
  return {_mm256_cmpeq_epi16(_mm256_and_si256(every(int(b & 0xffff)), lane), lane)};
}

template <typename T>
LEAKY_HD Halves<T> load_bits(const T* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
template <typename T>
LEAKY_HD void store(T* p, Halves<T> a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
}

LEAKY_HD FloatPair to_floats(Halves<BFloat16> x) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(x.v, 16)),
          _mm256_castsi256_ps(_mm256_and_si256(x.v, _mm256_set1_epi32(int(0xffff0000))))};
}
LEAKY_HD __m256i rounded(Float x) {  // in the upper half
  const __m256i raw = _mm256_castps_si256(x.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(raw, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(raw, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
}
LEAKY_HD Halves<BFloat16> to_bfloat16(FloatPair x) {
  return {_mm256_blend_epi16(_mm256_srli_epi32(rounded(x.even), 16), rounded(x.odd), 0xaa)};
}
LEAKY_HD Float quarters_0213(__m256 a) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xd8)); }
LEAKY_HD FloatPair even_odd(Float a, Float b) {
  return {quarters_0213(_mm256_shuffle_ps(a.v, b.v, 0x88)), quarters_0213(_mm256_shuffle_ps(a.v, b.v, 0xdd))};
}
LEAKY_HD void in_order(FloatPair x, Float* a, Float* b) {
  const __m256 low = _mm256_unpacklo_ps(x.even.v, x.odd.v), high = _mm256_unpackhi_ps(x.even.v, x.odd.v);
  *a = _mm256_permute2f128_ps(low, high, 0x20);
  *b = _mm256_permute2f128_ps(low, high, 0x31);
}
LEAKY_HD FloatPairMask mask_of_floats(HalvesMask m) {
  return {{_mm256_castsi256_ps(_mm256_srai_epi32(_mm256_slli_epi32(m.m, 16), 16))},
          {_mm256_castsi256_ps(_mm256_srai_epi32(m.m, 16))}};
}

struct Double {
  using Scalar = double;
  static constexpr int kLanes = 4;
  __m256d v;
  Double() = default;
  Double(__m256d value) : v(value) {}
  explicit Double(double value) : v(_mm256_set1_pd(value)) {}
};

struct DoubleMask {
  __m256d m;
};

LEAKY_HD Double operator*(Double a, Double b) { return _mm256_mul_pd(a.v, b.v); }
LEAKY_HD Double operator/(Double a, Double b) { return _mm256_div_pd(a.v, b.v); }
LEAKY_HD Double operator+(Double a, Double b) { return _mm256_add_pd(a.v, b.v); }
LEAKY_HD DoubleMask operator>=(Double a, Double b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_GE_OQ)}; }
LEAKY_HD DoubleMask operator<(Double a, Double b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ)}; }
LEAKY_HD DoubleMask operator!(DoubleMask a) { return {_mm256_xor_pd(a.m, _mm256_castsi256_pd(_mm256_set1_epi32(-1)))}; }
LEAKY_HD Double select(DoubleMask condition, Double a, Double b) { return _mm256_blendv_pd(b.v, a.v, condition.m); }
LEAKY_HD uint64_t bits(DoubleMask a) { return uint32_t(_mm256_movemask_pd(a.m)); }
LEAKY_HD DoubleMask mask_from_bits(Double, uint64_t b) {
  const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
  const __m256i picked = _mm256_and_si256(_mm256_set1_epi64x(int64_t(b)), lane);
  return {_mm256_castsi256_pd(_mm256_cmpeq_epi64(picked, lane))};
}
LEAKY_HD DoubleMask sign_or_nan(Double a) { return {_mm256_or_pd(a.v, _mm256_cmp_pd(a.v, a.v, _CMP_UNORD_Q))}; }
LEAKY_HD Double load(const double* p) { return _mm256_loadu_pd(p); }
LEAKY_HD void store(double* p, Double a) { _mm256_storeu_pd(p, a.v); }

LEAKY_HD double sum_of_lanes(Double a) {
  const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}
LEAKY_HD Double widen(Double a) { return a; }
LEAKY_HD Double widen(Float a) {
  return Double(_mm256_cvtps_pd(_mm256_castps256_ps128(a.v))) + Double(_mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1)));
}
LEAKY_HD void add_to(double* sums, Double a) { store(sums, load(sums) + a); }
LEAKY_HD void add_to(double* sums, Float a) {
  add_to(sums, Double(_mm256_cvtps_pd(_mm256_castps256_ps128(a.v))));
  add_to(sums + 4, Double(_mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1))));
}

#include "some.inc"

}  // namespace leaky_ext::cpu::avx2
