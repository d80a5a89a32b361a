// Elements in memory, of a type known at run time, and where a StridedView finds them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

#include "../../csrc/kernels.h"

using leaky_ext::Alpha;
using leaky_ext::DType;
using leaky_ext::StridedView;

inline int64_t size_of(DType dtype) { return dtype == DType::Float64 ? 8 : dtype == DType::Float32 ? 4 : 2; }

// Conversions that share no code with the kernels. A 16-bit type has `fraction` bits behind the point, and its smallest
// subnormal number is 2^lowest.
struct Half {
  int fraction, lowest;
  uint16_t infinity() const { return uint16_t(0x7fff >> fraction << fraction); }
};

inline Half half_of(DType dtype) { return dtype == DType::Float16 ? Half{10, -24} : Half{7, -133}; }

inline double from_half(Half half, uint16_t bits) {
  const int exponent = (bits & 0x7fff) >> half.fraction, mantissa = bits & ((1 << half.fraction) - 1);
  double value = exponent ? std::ldexp(double(mantissa + (1 << half.fraction)), exponent - 1 + half.lowest)
                          : std::ldexp(double(mantissa), half.lowest);
  if ((bits & 0x7fff) >= half.infinity()) value = mantissa ? std::numeric_limits<double>::quiet_NaN() : INFINITY;
  return bits & 0x8000 ? -value : value;
}

inline uint16_t to_half(Half half, double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return uint16_t(sign | 0x7fff);
  int exponent = 0;  // |value| < 2^exponent
  std::frexp(value, &exponent);
  if (value == 0 || exponent < half.lowest) exponent = half.lowest;
  const int unit = std::max(exponent - 1 - half.fraction, half.lowest);
  const double units = std::nearbyint(std::ldexp(std::fabs(value), -unit));  // rounding may carry into the exponent
  const double bits = units + double(unit - half.lowest) * (1 << half.fraction);
  return uint16_t(sign | (bits < half.infinity() ? uint16_t(bits) : half.infinity()));
}

inline double get(DType dtype, const void* data, int64_t i) {
  switch (dtype) {
    case DType::Float64:
      return static_cast<const double*>(data)[i];
    case DType::Float32:
      return static_cast<const float*>(data)[i];
    default:
      return from_half(half_of(dtype), static_cast<const uint16_t*>(data)[i]);
  }
}

inline void put(DType dtype, void* data, int64_t i, double value) {
  switch (dtype) {
    case DType::Float64:
      static_cast<double*>(data)[i] = value;
      break;
    case DType::Float32:
      static_cast<float*>(data)[i] = float(value);
      break;
    default:
      static_cast<uint16_t*>(data)[i] = to_half(half_of(dtype), value);
  }
}

inline double round_to(DType dtype, double value) {
  double space;
  put(dtype, &space, 0, value);
  return get(dtype, &space, 0);
}

inline int64_t place(const StridedView& view, int64_t i) {
  if (view.dense()) return i;
  int64_t at = 0;
  for (int d = view.ndim - 1; d >= 0; --d) {
    at += i % view.size[d] * view.stride[d];
    i /= view.size[d];
  }
  return at;
}

#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t kGuardBytes = 0;  // it sees the first byte too far
#else
constexpr int64_t kGuardBytes = 64;
#endif

// Elements between guards, every byte 0x2a. `origin` elements precede element 0, so that vectors are unaligned and
// strides can be negative.
class Buffer {
 public:
  Buffer() = default;
  Buffer(DType dtype, int64_t elements, int64_t origin = 0)
      : dtype_(dtype), before_(origin + guard()), after_(elements + guard()) {
    const size_t bytes = size_t((before_ + after_) * size_of(dtype));
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, bytes) != 0) std::abort();
    memory_.reset(static_cast<unsigned char*>(memory));
    std::memset(memory, 0x2a, bytes);
  }

  Buffer copy() const {
    Buffer other(dtype_, after_ - guard(), before_ - guard());
    std::memcpy(other.memory_.get(), memory_.get(), size_t((before_ + after_) * size_of(dtype_)));
    return other;
  }

  void* data() const { return memory_ ? memory_.get() + before_ * size_of(dtype_) : nullptr; }
  double at(int64_t i) const { return get(dtype_, data(), i); }
  void set(int64_t i, double value) { put(dtype_, data(), i, value); }

  // Every element, guards too: the same number, sign of zero included, or both NaN. kSame, or the first that differs.
  static constexpr int64_t kSame = INT64_MIN;
  int64_t differs(const Buffer& other) const {
    for (int64_t i = -before_; i < after_; ++i) {
      const double a = at(i), b = other.at(i);
      if (!(a == b && std::signbit(a) == std::signbit(b)) && !(std::isnan(a) && std::isnan(b))) return i;
    }
    return kSame;
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  int64_t guard() const { return kGuardBytes / size_of(dtype_); }
  DType dtype_ = DType::Float32;
  int64_t before_ = 0, after_ = 0;
  std::unique_ptr<unsigned char, Free> memory_;
};
