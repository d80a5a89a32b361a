// Index arithmetic: division by a number known at launch, channels, and the places of strided elements.
// Index is uint32_t where the tensor has fewer than 2^31 elements, else uint64_t.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace leaky_ext::cuda {

template <typename Index>
struct Divider {
  Index divisor = 1;

  Divider() = default;
  explicit Divider(int64_t d) : divisor(Index(d)) {}

  __device__ __forceinline__ Index divide(Index n) const { return n / divisor; }
};

// A multiplication and a shift in place of the division, for numbers below 2^31
// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).
template <>
struct Divider<uint32_t> {
  uint32_t divisor = 1;
  uint32_t multiplier = 1;
  uint32_t shift = 0;

  Divider() = default;
  explicit Divider(int64_t d) : divisor(uint32_t(d)) {
    while ((int64_t(1) << shift) < d) ++shift;
    multiplier = uint32_t((((uint64_t(1) << shift) - uint64_t(d)) << 32) / uint64_t(d) + 1);
  }

  __device__ __forceinline__ uint32_t divide(uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
};

// The channel of an element.
template <typename Index>
struct Channels {
  Divider<Index> inner, channels;

  explicit Channels(const Shape& shape) : inner(shape.inner), channels(shape.channels) {}

  __device__ __forceinline__ Index of(Index i) const {
    const Index row = inner.divide(i);
    return row - channels.divide(row) * channels.divisor;
  }
};

// The place of element i, in elements, where an operand has a StridedView.
template <typename Index>
struct Strides {
  int ndim = 0;
  Divider<Index> size[StridedView::kMaxDims];
  int64_t stride[StridedView::kMaxDims] = {};

  explicit Strides(const StridedView& view) : ndim(view.ndim) {
    for (int d = 0; d < ndim; ++d) {
      size[d] = Divider<Index>(view.size[d]);
      stride[d] = view.stride[d];
    }
  }

  __device__ __forceinline__ int64_t offset(Index i) const {
    if (ndim == 0) return int64_t(i);
    int64_t place = 0;
#pragma unroll
    for (int d = StridedView::kMaxDims - 1; d > 0; --d) {
      if (d < ndim) {
        const Index rest = size[d].divide(i);
        place += int64_t(i - rest * size[d].divisor) * stride[d];
        i = rest;
      }
    }
    return place + int64_t(i) * stride[0];
  }
};

}  // namespace leaky_ext::cuda
