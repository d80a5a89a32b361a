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
  Float() = default;
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
LEAKY_HD __m256i to_halves(Float a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LEAKY_HD void store(float* p, Float a) { _mm512_storeu_ps(p, a.v); }
LEAKY_HD void store(Half* p, Float a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_halves(a)); }

struct FloatPair {
  Float even, odd;
};

struct FloatPairMask {
  FloatMask even, odd;
};

template <typename T>
struct Halves {
  static constexpr int kLanes = 32;
  __m512i v;
};

struct HalvesMask {
  __mmask32 m;
};

template <typename T>
LEAKY_HD HalvesMask sign_or_nan(Halves<T> x) {  // patterns above that of infinity
  return {_mm512_cmpgt_epu16_mask(x.v, _mm512_set1_epi16(T::kInfinity))};
}
template <typename T>
LEAKY_HD HalvesMask negative(Halves<T> x) {  // the same but for -0.0
  return {_mm512_mask_cmpneq_epi16_mask(sign_or_nan(x).m, x.v, _mm512_set1_epi16(kSign))};
}
template <typename T>
LEAKY_HD Halves<T> relu(Halves<T> x) {  // 0 where kSign < x <= kSign | kInfinity
  const __m512i after_zero = _mm512_sub_epi16(x.v, _mm512_set1_epi16(short(kSign + 1)));
  const __mmask32 kept = _mm512_cmpge_epu16_mask(after_zero, _mm512_set1_epi16(T::kInfinity));
  return {_mm512_maskz_mov_epi16(kept, x.v)};
}
template <typename T>
LEAKY_HD Halves<T> without_sign(Halves<T> x) {
  return {_mm512_and_si512(x.v, _mm512_set1_epi16(0x7fff))};
}
template <typename T>
LEAKY_HD Halves<T> select(HalvesMask condition, Halves<T> a, Halves<T> b) {
  return {_mm512_mask_blend_epi16(condition.m, b.v, a.v)};
}
template <typename T>
LEAKY_HD Halves<T> keep(HalvesMask condition, Halves<T> a) {
  return {_mm512_maskz_mov_epi16(condition.m, a.v)};
}
LEAKY_HD uint64_t bits(HalvesMask a) { return a.m; }
template <typename T>
LEAKY_HD HalvesMask mask_from_bits(Halves<T>, uint64_t b) {
  return {__mmask32(b)};
}

template <typename T>
LEAKY_HD Halves<T> load_bits(const T* p) {
  return {_mm512_loadu_si512(p)};
}
template <typename T>
LEAKY_HD void store(T* p, Halves<T> a) {
  _mm512_storeu_si512(p, a.v);
}

LEAKY_HD FloatPair to_floats(Halves<BFloat16> x) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(x.v, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(x.v, _mm512_set1_epi32(int(0xffff0000))))};
}
LEAKY_HD __m512i rounded(Float x) {  // in the upper half
  const __m512i raw = _mm512_castps_si512(x.v);
  // In each lane two numbers of 16 bits, 0x7fff and the last bit that stays, whose sum is what rounding adds.
  const __m512i terms = _mm512_ternarylogic_epi32(raw, _mm512_set1_epi32(0x10000), _mm512_set1_epi32(0x7fff), 0xea);
  return _mm512_add_epi32(raw, _mm512_madd_epi16(terms, _mm512_set1_epi16(1)));
}
LEAKY_HD Halves<BFloat16> to_bfloat16(FloatPair x) {
  return {_mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(rounded(x.even), 16), rounded(x.odd))};
}
LEAKY_HD FloatPair even_odd(Float a, Float b) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  return {_mm512_permutex2var_ps(a.v, even, b.v), _mm512_permutex2var_ps(a.v, odd, b.v)};
}
LEAKY_HD void in_order(FloatPair x, Float* a, Float* b) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  *a = _mm512_permutex2var_ps(x.even.v, low, x.odd.v);
  *b = _mm512_permutex2var_ps(x.even.v, high, x.odd.v);
}
LEAKY_HD FloatPairMask mask_of_floats(HalvesMask m) {
  return {{__mmask16(_pext_u32(m.m, 0x55555555))}, {__mmask16(_pext_u32(m.m, 0xaaaaaaaa))}};
}

struct Double {
  using Scalar = double;
  static constexpr int kLanes = 8;
  __m512d v;
  Double() = default;
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

// Masked, where a memcpy of n bytes is a call. The mask of the first n - begin of 64 bytes:
LEAKY_HD __mmask64 first_bytes(int64_t n, int64_t begin) {
  const int64_t left = n - begin;
  return left >= 64 ? ~__mmask64(0) : left <= 0 ? 0 : (__mmask64(1) << left) - 1;
}
template <int kSize, typename T>
LEAKY_HD void read_some(T (&to)[kSize], const T* from, int64_t n) {
  static_assert(sizeof to % 64 == 0);
  for (int64_t i = 0; i < int64_t(sizeof to); i += 64) {
    const char* p = reinterpret_cast<const char*>(from) + i;
    _mm512_storeu_si512(reinterpret_cast<char*>(to) + i,
                        _mm512_maskz_loadu_epi8(first_bytes(n * int64_t(sizeof(T)), i), p));
  }
}
template <int kSize, typename T>
LEAKY_HD void write_some(T* to, const T (&from)[kSize], int64_t n) {
  for (int64_t i = 0; i < int64_t(sizeof from); i += 64) {
    _mm512_mask_storeu_epi8(reinterpret_cast<char*>(to) + i, first_bytes(n * int64_t(sizeof(T)), i),
                            _mm512_loadu_si512(reinterpret_cast<const char*>(from) + i));
  }
}

}  // namespace leaky_ext::cpu::avx512
