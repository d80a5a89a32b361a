// Element types, the arithmetic type of each, and operands that are read and written in packs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../kernels.h"
#include "index.cuh"
#include "tuning.h"

namespace leaky_ext::cuda {

using Half = __half;
using BFloat16 = __nv_bfloat16;

__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ float widen(Half v) { return __half2float(v); }
__device__ __forceinline__ float widen(BFloat16 v) { return __bfloat162float(v); }

// The type that an element of type T is computed in.
template <typename T>
using Wide = decltype(widen(T()));

// Rounds to T.
template <typename T, typename V>
__device__ __forceinline__ T narrow(V v) {
  constexpr bool kDouble = std::is_same_v<V, double>;
  if constexpr (std::is_same_v<T, Half>) {
    return kDouble ? __double2half(v) : __float2half_rn(v);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return kDouble ? __double2bfloat16(v) : __float2bfloat16_rn(v);
  } else {
    return T(v);
  }
}

// Calls body with a value of the element type, on the host or the device.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable
#endif
template <typename Body>
__host__ __device__ __forceinline__ void with_type(DType dtype, Body body) {
  switch (dtype) {
    case DType::Float64:
      return body(double());
    case DType::Float32:
      return body(float());
    case DType::Float16:
      return body(Half());
    case DType::BFloat16:
      return body(BFloat16());
  }
}

// The number of elements in 16 bytes.
template <typename T>
constexpr int kPackWidth = 16 / sizeof(T);

template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T v[kWidth];
};

// Rounds two elements in one instruction.
__device__ __forceinline__ __half2 narrow_two(Half, float a, float b) { return __floats2half2_rn(a, b); }
__device__ __forceinline__ __nv_bfloat162 narrow_two(BFloat16, float a, float b) { return __floats2bfloat162_rn(a, b); }

template <typename T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> narrow_pack(const Wide<T> (&values)[kWidth]) {
  Pack<T, kWidth> pack;
  if constexpr (sizeof(T) == 2 && kWidth > 1) {
    alignas(16) decltype(narrow_two(T(), 0, 0)) pairs[kWidth / 2];
#pragma unroll
    for (int j = 0; j < kWidth / 2; ++j) pairs[j] = narrow_two(T(), values[2 * j], values[2 * j + 1]);
    memcpy(&pack, pairs, sizeof pack);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) pack.v[j] = narrow<T>(values[j]);
  }
  return pack;
}

// A pack as loaded. Unpack only after all loads of a thread are issued: unpacking waits, and delays later loads.
struct alignas(16) Words {
  uint32_t words[4];
};

// An operand: elements that are read and written in packs. `places` computes the addresses of packs from the numbers of
// their first elements. `count` is the number of elements in a pack: less than kWidth at the end of a tensor, 0 past
// it. Missing elements are read as 0.
template <typename T_, typename Index_, typename View, int kWidth_>
struct PackedOperand {
  using T = T_;
  using Index = Index_;
  using Raw = std::conditional_t<kWidth_ == 1, Pack<T, 1>, Words>;
  static constexpr int kWidth = kWidth_;

  T* data;
  View view;

  PackedOperand(const void* pointer, const StridedView& view)
      : data(static_cast<T*>(const_cast<void*>(pointer))), view(view) {}

  template <int n>
  __device__ __forceinline__ void places(const uint64_t (&i)[n], T* (&place)[n]) const {
    int64_t offset[n];
    view.offsets(i, offset);
#pragma unroll
    for (int u = 0; u < n; ++u) place[u] = data + offset[u];
  }

  __device__ static __forceinline__ Raw load(const T* place) { return *reinterpret_cast<const Raw*>(place); }

  __device__ static __forceinline__ Raw load_part(const T* place, int count) {
    Pack<T, kWidth> pack;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) pack.v[j] = j < count ? place[j] : narrow<T>(0.0f);
    Raw raw;
    memcpy(&raw, &pack, sizeof raw);
    return raw;
  }

  __device__ static __forceinline__ void unpack(const Raw& raw, Wide<T> (&values)[kWidth]) {
    Pack<T, kWidth> pack;
    memcpy(&pack, &raw, sizeof pack);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) values[j] = widen(pack.v[j]);
  }

  __device__ static __forceinline__ void store(T* place, int count, const Wide<T> (&values)[kWidth]) {
    const Pack<T, kWidth> pack = narrow_pack<T, kWidth>(values);
    if (count >= kWidth) {
      *reinterpret_cast<Pack<T, kWidth>*>(place) = pack;
    } else if (count > 0) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (j < count) place[j] = pack.v[j];
      }
    }
  }
};

// The view of an operand with the strides of the output.
struct DenseView {
  explicit DenseView(const StridedView&) {}

  template <int n>
  __device__ __forceinline__ void offsets(const uint64_t (&i)[n], int64_t (&offset)[n]) const {
#pragma unroll
    for (int u = 0; u < n; ++u) offset[u] = int64_t(i[u]);
  }
};

template <typename T, typename Index>
using Dense = PackedOperand<T, Index, DenseView, kPackWidth<T>>;

// Slices that consist of whole packs: chunks, halves of a gate, rows of a wider matrix.
template <typename T, typename Index>
using StridedPacks = PackedOperand<T, Index, Strides<Index, kPackWidth<T>>, kPackWidth<T>>;

// Any elements, one at a time. Neighbouring threads read neighbouring elements, so sectors are read whole.
template <typename T, typename Index>
using Strided = PackedOperand<T, Index, Strides<Index, 1>, 1>;

// Returns the number of elements in the pack at i.
template <typename Operand>
__device__ __forceinline__ int elements_at(uint64_t i, uint64_t end) {
  return i >= end ? 0 : end - i < Operand::kWidth ? int(end - i) : Operand::kWidth;
}

// The packs that a thread has in flight. In a whole tile, `count` is a constant, and tests of it cost nothing.
template <typename Operand>
struct Packs {
  static constexpr int kPacks = packs_in_flight(Operand::kWidth);

  uint64_t i[kPacks];
  int count[kPacks];
};

// Issues the loads of all packs, whole ones first.
template <typename Operand>
__device__ __forceinline__ void load_all(const Operand& operand, const Packs<Operand>& packs,
                                         typename Operand::Raw (&raw)[Packs<Operand>::kPacks]) {
  constexpr int kPacks = Packs<Operand>::kPacks;
  typename Operand::T* place[kPacks];
  operand.places(packs.i, place);
#pragma unroll
  for (int u = 0; u < kPacks; ++u) {
    if (packs.count[u] >= Operand::kWidth) {
      raw[u] = Operand::load(place[u]);
    } else {
      raw[u] = {};
    }
  }
#pragma unroll
  for (int u = 0; u < kPacks; ++u) {
    const int count = packs.count[u];
    if (count > 0 && count < Operand::kWidth) raw[u] = Operand::load_part(place[u], count);
  }
}

}  // namespace leaky_ext::cuda
