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

// Rounds to T, once.
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

// 16 bytes of elements, and their values in the arithmetic type.
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
  if constexpr (sizeof(T) == 2) {
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

// A pack as it comes from memory. Unpack only after all loads of a thread are issued: unpacking stalls on its own load,
// and would hold up those behind it.
struct alignas(16) Words {
  uint32_t words[4];
};

// The operands below: `places` returns where packs lie, given the numbers of their first elements. `count` is how many
// elements of a pack exist: less than kWidth at the end of a tensor, and 0 past it. The others are read as 0.

// Packs of 16 bytes.
template <typename T_, typename Index_, typename View>
struct Packed {
  using T = T_;
  using Index = Index_;
  using Raw = Words;
  static constexpr int kWidth = kPackWidth<T>;

  T* data;
  View view;

  Packed(const void* pointer, const StridedView& view)
      : data(static_cast<T*>(const_cast<void*>(pointer))), view(view) {}

  template <int n>
  __device__ __forceinline__ void places(const uint64_t (&i)[n], T* (&place)[n]) const {
    int64_t offset[n];
    view.offsets(i, offset);
#pragma unroll
    for (int u = 0; u < n; ++u) place[u] = data + offset[u];
  }

  __device__ static __forceinline__ Words load(const T* place) { return *reinterpret_cast<const Words*>(place); }

  __device__ static __forceinline__ Words load_part(const T* place, int count) {
    Pack<T, kWidth> pack;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) pack.v[j] = j < count ? place[j] : narrow<T>(0.0f);
    Words words;
    memcpy(&words, &pack, sizeof words);
    return words;
  }

  __device__ static __forceinline__ void unpack(const Words& words, Wide<T> (&values)[kWidth]) {
    Pack<T, kWidth> pack;
    memcpy(&pack, &words, sizeof pack);
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

// The elements lie as the output's do.
struct DenseView {
  explicit DenseView(const StridedView&) {}

  template <int n>
  __device__ __forceinline__ void offsets(const uint64_t (&i)[n], int64_t (&offset)[n]) const {
#pragma unroll
    for (int u = 0; u < n; ++u) offset[u] = int64_t(i[u]);
  }
};

template <typename T, typename Index>
using Dense = Packed<T, Index, DenseView>;

// Slices of whole packs: chunks, halves of a gate, rows of a wider matrix.
template <typename T, typename Index>
using StridedPacks = Packed<T, Index, Strides<Index, kPackWidth<T>>>;

// Any operand, one element at a time: neighbouring threads take neighbouring elements, so unaligned data is still read
// in whole sectors.
template <typename T_, typename Index_>
struct Strided {
  using T = T_;
  using Index = Index_;
  using Raw = Pack<T, 1>;
  static constexpr int kWidth = 1;

  T* data;
  Strides<Index, 1> view;

  Strided(const void* pointer, const StridedView& view)
      : data(static_cast<T*>(const_cast<void*>(pointer))), view(view) {}

  template <int n>
  __device__ __forceinline__ void places(const uint64_t (&i)[n], T* (&place)[n]) const {
    int64_t offset[n];
    view.offsets(i, offset);
#pragma unroll
    for (int u = 0; u < n; ++u) place[u] = data + offset[u];
  }

  __device__ static __forceinline__ Raw load(const T* place) { return {{*place}}; }
  __device__ static __forceinline__ Raw load_part(const T*, int) { return {{narrow<T>(0.0f)}}; }

  __device__ static __forceinline__ void unpack(const Raw& raw, Wide<T> (&values)[1]) { values[0] = widen(raw.v[0]); }

  __device__ static __forceinline__ void store(T* place, int count, const Wide<T> (&values)[1]) {
    if (count > 0) *place = narrow<T>(values[0]);
  }
};

// Returns how many elements of the pack at i exist.
template <typename Operand>
__device__ __forceinline__ int elements_at(uint64_t i, uint64_t end) {
  return i >= end ? 0 : end - i < Operand::kWidth ? int(end - i) : Operand::kWidth;
}

// Which packs a thread has in flight. In a whole tile all elements are there: `count` is known when the kernel is
// compiled, and so is the answer to each test of it.
template <typename Operand>
struct Packs {
  static constexpr int kPacks = packs_in_flight(Operand::kWidth);

  uint64_t i[kPacks];
  int count[kPacks];
};

// kThreads packs lie between two packs of a thread.
template <typename Operand>
struct TilePacks : Packs<Operand> {
  template <typename Whole>
  __device__ __forceinline__ TilePacks(Whole, typename Operand::Index tile, typename Operand::Index numel) {
    constexpr int kPacks = Packs<Operand>::kPacks;
    // In 64 bits, where the compiler may add a constant to an address: one address serves all packs.
    const uint64_t first = uint64_t(tile * (kPacks * kThreads) + threadIdx.x) * Operand::kWidth;
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
      this->i[u] = first + uint64_t(u) * (kThreads * Operand::kWidth);
      this->count[u] = Whole::value ? Operand::kWidth : elements_at<Operand>(this->i[u], numel);
    }
  }
};

// Calls body(tile, whole) for the tiles of a block, whole ones first. A block of a packed kernel has one tile. A block of
// a scalar kernel loops over tiles, because its setup is expensive.
template <typename Operand, typename Body>
__device__ __forceinline__ void for_tiles(typename Operand::Index whole_tiles, Body body) {
  typename Operand::Index tile = blockIdx.x;
  for (; tile < whole_tiles; tile += gridDim.x) {
    body(tile, std::true_type());
    if (Operand::kWidth > 1) return;
  }
  if (tile == whole_tiles) body(tile, std::false_type());
}

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
