// Elements in memory, of a type known at run time, and where a StridedView finds them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../../csrc/kernels.h"

using leaky_ext::Alpha;
using leaky_ext::DType;
using leaky_ext::StridedView;

inline int64_t size_of(DType dtype) { return dtype == DType::Float64 ? 8 : dtype == DType::Float32 ? 4 : 2; }

inline double get(DType dtype, const void* data, int64_t i) {
  switch (dtype) {
    case DType::Float64:
      return static_cast<const double*>(data)[i];
    case DType::Float32:
      return static_cast<const float*>(data)[i];
    case DType::Float16:
      return __half2float(static_cast<const __half*>(data)[i]);
    default:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
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
    case DType::Float16:
      static_cast<__half*>(data)[i] = __double2half(value);
      break;
    default:
      static_cast<__nv_bfloat16*>(data)[i] = __double2bfloat16(value);
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

// Exactly as much memory as asked for, so that AddressSanitizer sees the first byte too far. `origin` is where element
// 0 lies: not always at the front, so that vectors are unaligned and strides can be negative.
class Buffer {
 public:
  Buffer() = default;
  Buffer(DType dtype, int64_t elements, int64_t origin = 0) : dtype_(dtype), origin_(origin) {
    bytes_ = (elements + origin) * size_of(dtype);
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, size_t(bytes_)) != 0) std::abort();
    memory_.reset(static_cast<unsigned char*>(memory));
    std::memset(memory, 0x2a, size_t(bytes_));
  }

  Buffer copy() const {
    Buffer other(dtype_, bytes_ / size_of(dtype_) - origin_, origin_);
    std::memcpy(other.memory_.get(), memory_.get(), size_t(bytes_));
    return other;
  }

  void* data() const { return memory_ ? memory_.get() + origin_ * size_of(dtype_) : nullptr; }
  double at(int64_t i) const { return get(dtype_, data(), i); }
  void set(int64_t i, double value) { put(dtype_, data(), i, value); }

  // Every element of the memory: the same number, sign of zero included, or both NaN. -1, or the first that differs.
  int64_t differs(const Buffer& other) const {
    for (int64_t i = -origin_; i < bytes_ / size_of(dtype_) - origin_; ++i) {
      const double a = at(i), b = other.at(i);
      if (!(a == b && std::signbit(a) == std::signbit(b)) && !(std::isnan(a) && std::isnan(b))) return i + origin_;
    }
    return -1;
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  DType dtype_ = DType::Float32;
  int64_t origin_ = 0, bytes_ = 0;
  std::unique_ptr<unsigned char, Free> memory_;
};
