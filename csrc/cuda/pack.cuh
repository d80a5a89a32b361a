// Element types, the arithmetic type of each, and operands that are read and written in packs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

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

// What an element of type T is computed in.
template <typename T>
using Wide = decltype(widen(T()));

// Rounds to T, once.
template <typename T>
__device__ __forceinline__ T narrow(double v) {
  return T(v);
}
template <>
__device__ __forceinline__ Half narrow<Half>(double v) {
  return __double2half(v);
}
template <>
__device__ __forceinline__ BFloat16 narrow<BFloat16>(double v) {
  return __double2bfloat16(v);
}
template <typename T>
__device__ __forceinline__ T narrow(float v) {
  return T(v);
}
template <>
__device__ __forceinline__ Half narrow<Half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __forceinline__ BFloat16 narrow<BFloat16>(float v) {
  return __float2bfloat16_rn(v);
}

// `count` is how many elements of a pack there are: less than its width at the end of a tensor, and zero or less past
// it. What is not there is read as 0.
template <typename T, int Width>
struct alignas(sizeof(T) * Width) Pack {
  T v[Width];
};

// A pack as it comes from memory. Unpacked only when all loads of a thread are under way: what takes a word apart waits
// for its load, and would hold up those behind it.
struct alignas(16) Words {
  uint32_t words[4];
};

// An operand whose elements lie as the output's do, from an aligned address on: 16 bytes at once.
template <typename T_, typename Index_>
struct Dense {
  using T = T_;
  using Index = Index_;
  using Raw = Words;
  static constexpr int kWidth = 16 / sizeof(T);

  T* data;

  Dense(const void* pointer, const StridedView&) : data(static_cast<T*>(const_cast<void*>(pointer))) {}

  __device__ __forceinline__ Words load(Index i) const { return *reinterpret_cast<const Words*>(data + i); }

  __device__ __forceinline__ Words load(Index i, int count) const {
    if (count >= kWidth) return load(i);
    Pack<T, kWidth> pack;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) pack.v[j] = j < count ? data[i + j] : narrow<T>(0.0f);
    Words words;
    memcpy(&words, &pack, sizeof words);
    return words;
  }

  __device__ static __forceinline__ Pack<T, kWidth> unpack(const Words& words) {
    Pack<T, kWidth> pack;
    memcpy(&pack, &words, sizeof pack);
    return pack;
  }

  __device__ __forceinline__ void store(Index i, int count, const Pack<T, kWidth>& pack) const {
    if (count >= kWidth) {
      *reinterpret_cast<Pack<T, kWidth>*>(data + i) = pack;
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (j < count) data[i + j] = pack.v[j];
      }
    }
  }
};

// Any operand, one element at a time: neighbouring threads take neighbouring elements, so unaligned data is still read
// in whole sectors.
template <typename T_, typename Index_>
struct Strided {
  using T = T_;
  using Index = Index_;
  using Raw = Pack<T, 1>;
  static constexpr int kWidth = 1;

  T* data;
  Strides<Index> strides;

  Strided(const void* pointer, const StridedView& view)
      : data(static_cast<T*>(const_cast<void*>(pointer))), strides(view) {}

  __device__ __forceinline__ Pack<T, 1> load(Index i) const { return {{data[strides.offset(i)]}}; }

  __device__ __forceinline__ Pack<T, 1> load(Index i, int count) const {
    return {{count > 0 ? data[strides.offset(i)] : narrow<T>(0.0f)}};
  }

  __device__ static __forceinline__ Pack<T, 1> unpack(const Pack<T, 1>& pack) { return pack; }

  __device__ __forceinline__ void store(Index i, int count, const Pack<T, 1>& pack) const {
    if (count > 0) data[strides.offset(i)] = pack.v[0];
  }
};

// How many elements of the pack at i there are.
template <typename Operand>
__device__ __forceinline__ int elements_at(typename Operand::Index i, typename Operand::Index end) {
  return i >= end ? 0 : end - i < Operand::kWidth ? int(end - i) : Operand::kWidth;
}

// Where this thread's packs lie in a tile that begins at pack `base`, and how many elements of each there are.
template <typename Operand, int kPacks>
__device__ __forceinline__ void packs_of_tile(typename Operand::Index base, typename Operand::Index numel,
                                              typename Operand::Index (&i)[kPacks], int (&count)[kPacks]) {
#pragma unroll
  for (int u = 0; u < kPacks; ++u) {
    i[u] = (base + u * kThreads + threadIdx.x) * Operand::kWidth;
    count[u] = elements_at<Operand>(i[u], numel);
  }
}

// Loads the packs at i[0], i[1], ... One question for all of them, so that nothing stands between the loads.
template <typename Operand, int kPacks>
__device__ __forceinline__ void load_all(const Operand& operand, const typename Operand::Index (&i)[kPacks],
                                         const int (&count)[kPacks], typename Operand::Raw (&raw)[kPacks]) {
  bool whole = true;
#pragma unroll
  for (int u = 0; u < kPacks; ++u) whole = whole && count[u] >= Operand::kWidth;
  if (whole) {
#pragma unroll
    for (int u = 0; u < kPacks; ++u) raw[u] = operand.load(i[u]);
  } else {
#pragma unroll
    for (int u = 0; u < kPacks; ++u) raw[u] = operand.load(i[u], count[u]);
  }
}

}  // namespace leaky_ext::cuda
