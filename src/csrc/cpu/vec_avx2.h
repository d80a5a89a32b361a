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
LEAKY_HD Float load(const BFloat16* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}

LEAKY_HD __m128i to_halves(Float a) { return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LEAKY_HD __m128i to_bfloat16s(Float a) {
  const __m256i raw = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(raw, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(raw, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(raw, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

LEAKY_HD void store(float* p, Float a) { _mm256_storeu_ps(p, a.v); }
LEAKY_HD void store(Half* p, Float a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_halves(a)); }
LEAKY_HD void store(BFloat16* p, Float a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bfloat16s(a)); }
LEAKY_HD void stream(float* p, Float a) { _mm256_stream_ps(p, a.v); }
LEAKY_HD void stream(Half* p, Float a) { _mm_stream_si128(reinterpret_cast<__m128i*>(p), to_halves(a)); }
LEAKY_HD void stream(BFloat16* p, Float a) { _mm_stream_si128(reinterpret_cast<__m128i*>(p), to_bfloat16s(a)); }

struct Double {
  using Scalar = double;
  static constexpr int kLanes = 4;
  __m256d v;
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
LEAKY_HD void stream(double* p, Double a) { _mm256_stream_pd(p, a.v); }

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

}  // namespace leaky_ext::cpu::avx2
