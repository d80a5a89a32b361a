// Index arithmetic: division by a number known at launch, channels, and the offsets of strided elements.
// Index is uint32_t if the tensor has fewer than 2^31 elements, else uint64_t.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace leaky_ext::cuda {

// Divides by a number known at launch. In 32 bits, for numbers below 2^31, by a multiplication and a shift
// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).
template <typename Index>
struct Divider {
  static constexpr bool kMultiplies = sizeof(Index) == 4;

  Index divisor = 1;
  uint32_t multiplier = 1, shift = 0;

  Divider() = default;
  explicit Divider(int64_t d) : divisor(Index(d)) {
    if constexpr (kMultiplies) {
      while ((int64_t(1) << shift) < d) ++shift;
      multiplier = uint32_t((((uint64_t(1) << shift) - uint64_t(d)) << 32) / uint64_t(d) + 1);
    }
  }

  __device__ __forceinline__ Index divide(Index n) const {
    if constexpr (kMultiplies) {
      return (__umulhi(n, multiplier) + n) >> shift;
    } else {
      return n / divisor;
    }
  }
};

// Maps an element to its channel.
template <typename Index>
struct Channels {
  Divider<Index> inner, channels;

  explicit Channels(const Shape& shape) : inner(shape.inner), channels(shape.channels) {}

  __device__ __forceinline__ Index of(Index i) const {
    const Index row = inner.divide(i);
    return row - channels.divide(row) * channels.divisor;
  }
};

// Maps elements of an operand with a StridedView to offsets. If kPack > 1, packs are contiguous (is_packed_view).
template <typename Index, int kPack>
struct Strides {
  int ndim;
  Divider<Index> size[StridedView::kMaxDims];  // innermost first; the innermost counts packs
  int64_t stride[StridedView::kMaxDims] = {};  // in elements; the innermost from pack to pack

  explicit Strides(const StridedView& view) : ndim(view.ndim) {
    for (int d = 0; d < ndim; ++d) {
      const int from = ndim - 1 - d;
      size[d] = Divider<Index>(d == 0 ? view.size[from] / kPack : view.size[from]);
      stride[d] = d == 0 ? view.stride[from] * kPack : view.stride[from];
    }
  }

  // Finds n packs at once, so that each dimension is read once and the divisions overlap.
  template <int n>
  __device__ __forceinline__ void offsets(const uint64_t (&i)[n], int64_t (&offset)[n]) const {
    if (ndim == 0) {
#pragma unroll
      for (int u = 0; u < n; ++u) offset[u] = int64_t(i[u]);
      return;
    }
    Index left[n];
#pragma unroll
    for (int u = 0; u < n; ++u) {
      left[u] = Index(i[u]) / kPack;
      offset[u] = 0;
    }
#pragma unroll 1
    for (int d = 0; d < ndim; ++d) {
#pragma unroll
      for (int u = 0; u < n; ++u) {
        const Index next = d + 1 < ndim ? size[d].divide(left[u]) : 0;
        offset[u] += int64_t(left[u] - next * size[d].divisor) * stride[d];
        left[u] = next;
      }
    }
  }
};

// Returns true if each pack of the view is contiguous, and all distances between packs are multiples of a pack.
inline bool is_packed_view(const StridedView& view, int pack) {
  if (view.dense()) return true;
  const int last = view.ndim - 1;
  if (view.stride[last] != 1 || view.size[last] % pack != 0) return false;
  for (int d = 0; d < last; ++d) {
    if (view.stride[d] % pack != 0) return false;
  }
  return true;
}

}  // namespace leaky_ext::cuda
