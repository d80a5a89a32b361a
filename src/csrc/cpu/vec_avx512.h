// Vectors of 64 bytes, AVX-512 F, BW, DQ and VL. See vec_generic.h for what each function means.
#pragma once

#include <immintrin.h>

#include "half.h"

namespace leaky_ext::cpu::avx512 {

constexpr int kUnroll = 4;

struct Float {
  using Scalar = float;
  static constexpr int kLanes = 16;
  __m512 v;
  Float(__m512 value) : v(value) {}
  explicit Float(float value) : v(_mm512_set1_ps(value)) {}
};

struct FloatMask {
  __mmask16 m;
};

LEAKY_HD Float operator*(Float a, Float b) { return _mm512_mul_ps(a.v, b.v); }
LEAKY_HD Float operator/(Float a, Float b) { return _mm512_div_ps(a.v, b.v); }
LEAKY_HD Float operator+(Float a, Float b) { return _mm512_add_ps(a.v, b.v); }
LEAKY_HD FloatMask operator>=(Float a, Float b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
LEAKY_HD FloatMask operator<(Float a, Float b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
LEAKY_HD FloatMask operator!(FloatMask a) { return {_knot_mask16(a.m)}; }
LEAKY_HD Float select(FloatMask condition, Float a, Float b) { return _mm512_mask_blend_ps(condition.m, b.v, a.v); }
LEAKY_HD uint64_t bits(FloatMask a) { return a.m; }
LEAKY_HD FloatMask mask_from_bits(Float, uint64_t b) { return {__mmask16(b)}; }
LEAKY_HD FloatMask sign_or_nan(Float a) {
  return {__mmask16(_mm512_movepi32_mask(_mm512_castps_si512(a.v)) | _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q))};
}

LEAKY_HD Float load(const float* p) { return _mm512_loadu_ps(p); }
LEAKY_HD Float load(const Half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
LEAKY_HD Float load(const BFloat16* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

LEAKY_HD __m256i to_halves(Float a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LEAKY_HD __m256i to_bfloat16s(Float a) {
  const __m512i raw = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(raw, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(raw, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(raw, _mm512_set1_epi32(0x400000));
  const __m512i result = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), rounded, quiet);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16));
}

LEAKY_HD void store(float* p, Float a) { _mm512_storeu_ps(p, a.v); }
LEAKY_HD void store(Half* p, Float a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_halves(a)); }
LEAKY_HD void store(BFloat16* p, Float a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bfloat16s(a)); }
LEAKY_HD void stream(float* p, Float a) { _mm512_stream_ps(p, a.v); }
LEAKY_HD void stream(Half* p, Float a) { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), to_halves(a)); }
LEAKY_HD void stream(BFloat16* p, Float a) { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), to_bfloat16s(a)); }

struct Double {
  using Scalar = double;
  static constexpr int kLanes = 8;
  __m512d v;
  Double(__m512d value) : v(value) {}
  explicit Double(double value) : v(_mm512_set1_pd(value)) {}
};

struct DoubleMask {
  __mmask8 m;
};

LEAKY_HD Double operator*(Double a, Double b) { return _mm512_mul_pd(a.v, b.v); }
LEAKY_HD Double operator/(Double a, Double b) { return _mm512_div_pd(a.v, b.v); }
LEAKY_HD Double operator+(Double a, Double b) { return _mm512_add_pd(a.v, b.v); }
LEAKY_HD DoubleMask operator>=(Double a, Double b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_GE_OQ)}; }
LEAKY_HD DoubleMask operator<(Double a, Double b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ)}; }
LEAKY_HD DoubleMask operator!(DoubleMask a) { return {_knot_mask8(a.m)}; }
LEAKY_HD Double select(DoubleMask condition, Double a, Double b) { return _mm512_mask_blend_pd(condition.m, b.v, a.v); }
LEAKY_HD uint64_t bits(DoubleMask a) { return a.m; }
LEAKY_HD DoubleMask mask_from_bits(Double, uint64_t b) { return {__mmask8(b)}; }
LEAKY_HD DoubleMask sign_or_nan(Double a) {
  return {__mmask8(_mm512_movepi64_mask(_mm512_castpd_si512(a.v)) | _mm512_cmp_pd_mask(a.v, a.v, _CMP_UNORD_Q))};
}
LEAKY_HD Double load(const double* p) { return _mm512_loadu_pd(p); }
LEAKY_HD void store(double* p, Double a) { _mm512_storeu_pd(p, a.v); }
LEAKY_HD void stream(double* p, Double a) { _mm512_stream_pd(p, a.v); }

LEAKY_HD double sum_of_lanes(Double a) { return _mm512_reduce_add_pd(a.v); }
LEAKY_HD Double widen(Double a) { return a; }
LEAKY_HD Double widen(Float a) {  // both halves of a, added as doubles
  return Double(_mm512_cvtps_pd(_mm512_castps512_ps256(a.v))) + Double(_mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1)));
}
// sums[i] += a[i]
LEAKY_HD void add_to(double* sums, Double a) { store(sums, load(sums) + a); }
LEAKY_HD void add_to(double* sums, Float a) {
  add_to(sums, Double(_mm512_cvtps_pd(_mm512_castps512_ps256(a.v))));
  add_to(sums + 8, Double(_mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1))));
}

}  // namespace leaky_ext::cpu::avx512
