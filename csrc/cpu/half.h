// float16 and bfloat16 on processors without instructions for them. Conversions round to nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

#include "../leaky_math.h"

namespace leaky_ext::cpu {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

template <typename To, typename From>
LEAKY_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

LEAKY_HD double widen(double value) { return value; }
LEAKY_HD float widen(float value) { return value; }
LEAKY_HD float widen(BFloat16 value) { return bit_cast<float>(uint32_t(value.bits) << 16); }
LEAKY_HD float widen(Half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16;
  const uint32_t magnitude = value.bits & 0x7fff;
  if (magnitude >= 0x7c00) return bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ff) << 13);
  // The exponent moves from bias 15 to bias 127 by a multiplication, which also normalizes subnormal numbers.
  const float scaled = bit_cast<float>(magnitude << 13) * 0x1p112f;
  return bit_cast<float>(sign | bit_cast<uint32_t>(scaled));
}

LEAKY_HD BFloat16 to_bfloat16(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  if (value != value) return {uint16_t(bits >> 16 | 0x40)};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

LEAKY_HD Half to_half(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  const float magnitude = bit_cast<float>(bits & 0x7fffffffu);
  if (value != value) return {uint16_t(sign | 0x7e00)};
  if (magnitude >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  if (magnitude < 0x1p-14f) {  // subnormal: adding 0.5 leaves multiples of 2^-24 in the low bits, rounded
    return {uint16_t(sign | (bit_cast<uint32_t>(magnitude + 0.5f) - 0x3f000000u))};
  }
  const uint32_t m = bit_cast<uint32_t>(magnitude) - (112u << 23);
  return {uint16_t(sign | (m + 0xfff + (m >> 13 & 1)) >> 13)};
}

// Returns a float that rounds to a half type as the double itself would: sets the last bit if the float is inexact.
LEAKY_HD float round_to_odd(double value) {
  const float nearest = float(value);
  if (double(nearest) == value || nearest != nearest) return nearest;
  uint32_t bits = bit_cast<uint32_t>(nearest);
  const double magnitude = value < 0 ? -value : value;
  if (double(bit_cast<float>(bits & 0x7fffffffu)) > magnitude) --bits;
  return bit_cast<float>(bits | 1);
}

LEAKY_HD void store_rounded(double* to, double value) { *to = value; }
LEAKY_HD void store_rounded(float* to, double value) { *to = float(value); }
LEAKY_HD void store_rounded(Half* to, double value) { *to = to_half(round_to_odd(value)); }
LEAKY_HD void store_rounded(BFloat16* to, double value) { *to = to_bfloat16(round_to_odd(value)); }

}  // namespace leaky_ext::cpu
