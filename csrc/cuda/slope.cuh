// Slopes are read in the dtype of alpha, which is a run-time argument of a kernel.
#pragma once

#include "pack.cuh"

namespace leaky_ext::cuda {

// A slope as loaded. Convert it only after the loads of the data are issued, like a pack.
using RawSlope = uint64_t;

__device__ __forceinline__ RawSlope load_slope(const Alpha& alpha, int64_t channel) {
  if (alpha.data == nullptr) return 0;
  switch (alpha.dtype) {  // by size, so that both 16-bit types share a case
    case DType::Float64:
      return static_cast<const uint64_t*>(alpha.data)[channel];
    case DType::Float32:
      return static_cast<const uint32_t*>(alpha.data)[channel];
    case DType::Float16:
    case DType::BFloat16:
      return static_cast<const uint16_t*>(alpha.data)[channel];
  }
  __builtin_unreachable();
}

// Returns the bits as a value of type T.
template <typename T, typename Bits>
__device__ __forceinline__ T from_bits(Bits bits) {
  T value;
  static_assert(sizeof value == sizeof bits);
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename V>
__device__ __forceinline__ V to_slope(const Alpha& alpha, RawSlope raw) {
  if (alpha.data == nullptr) return V(alpha.value);
  switch (alpha.dtype) {
    case DType::Float64:
      return V(from_bits<double>(raw));
    case DType::Float32:
      return V(from_bits<float>(uint32_t(raw)));
    case DType::Float16:
      return V(widen(from_bits<Half>(uint16_t(raw))));
    case DType::BFloat16:
      return V(widen(from_bits<BFloat16>(uint16_t(raw))));
  }
  __builtin_unreachable();
}

// A slope, and its inverse, which computes x from y = value * x without a division per element. The scale, a power of
// two, keeps the inverse of a very small or large slope in range. A slope of 0 gives 0 * inf: NaN.
template <typename V>
struct Slope {
  V value = 0, scale = 1, inverse = 1;

  Slope() = default;
  __device__ __forceinline__ explicit Slope(V slope) : value(slope) {
    constexpr V kLarge = sizeof(V) == 8 ? V(0x1p512) : V(0x1p64);
    if (slope > -1 / kLarge && slope < 1 / kLarge) scale = kLarge;
    if (slope < -kLarge || slope > kLarge) scale = 1 / kLarge;
    inverse = 1 / (slope * scale);
  }

  __device__ __forceinline__ V input_from_output(V y) const { return y * scale * inverse; }
};

// One slope for many tiles: loaded at the start, converted at its first use.
template <typename V>
struct OneSlope {
  RawSlope raw;
  Slope<V> slope;
  bool converted = false;

  __device__ __forceinline__ OneSlope(const Alpha& alpha, int64_t channel) : raw(load_slope(alpha, channel)) {}

  __device__ __forceinline__ const Slope<V>& get(const Alpha& alpha) {
    if (!converted) slope = Slope<V>(to_slope<V>(alpha, raw));
    converted = true;
    return slope;
  }
};

}  // namespace leaky_ext::cuda
