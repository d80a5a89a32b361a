// Copies operands with other strides than the output to or from a buffer, one chunk at a time. So the loops process
// contiguous memory only, and the data is read once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../kernels.h"

namespace leaky_ext::cpu {

// Calls visit(place, stride, i, n): elements i to i + n of the chunk are at place, place + stride, ...
template <typename Visit>
void for_each_run(const StridedView& view, int64_t begin, int64_t n, Visit visit) {
  int64_t index[StridedView::kMaxDims], place = 0, rest = begin;
  const int last = view.ndim - 1;
  for (int d = last; d >= 0; --d) {
    index[d] = rest % view.size[d];
    rest /= view.size[d];
    place += index[d] * view.stride[d];
  }
  for (int64_t i = 0; i < n;) {
    const int64_t run = std::min(n - i, view.size[last] - index[last]);
    visit(place, view.stride[last], i, run);
    i += run;
    index[last] += run;
    place += run * view.stride[last];
    for (int d = last; d > 0 && index[d] == view.size[d]; --d) {
      index[d] = 0;
      place += view.stride[d - 1] - view.size[d] * view.stride[d];
      ++index[d - 1];
    }
  }
}

// Returns elements begin to begin + n: in place if the view is dense, otherwise gathered into the buffer.
template <typename Bits>
const Bits* gather(const void* operand, const StridedView& view, int64_t begin, int64_t n, Bits* to) {
  const Bits* from = static_cast<const Bits*>(operand);
  if (view.dense()) return from + begin;
  for_each_run(view, begin, n, [&](int64_t place, int64_t stride, int64_t i, int64_t run) {
    const Bits* source = from + place;
    if (stride == 1) {
      std::memcpy(to + i, source, size_t(run) * sizeof(Bits));
    } else if (stride == 0) {
      std::fill_n(to + i, run, *source);
    } else {
      for (int64_t j = 0; j < run; ++j) to[i + j] = source[j * stride];
    }
  });
  return to;
}

template <typename Bits>
void scatter(const Bits* from, const StridedView& view, int64_t begin, int64_t n, Bits* to) {
  for_each_run(view, begin, n, [&](int64_t place, int64_t stride, int64_t i, int64_t run) {
    if (stride == 1) {
      std::memcpy(to + place, from + i, size_t(run) * sizeof(Bits));
    } else {
      for (int64_t j = 0; j < run; ++j) to[place + j * stride] = from[i + j];
    }
  });
}

// Gathers the bits of a mask from the indices of their elements. The view's innermost stride is 1.
inline void gather_bits(const uint8_t* from, const StridedView& view, int64_t begin, int64_t n, uint8_t* to) {
  std::memset(to, 0, size_t(n + 7) / 8);
  for_each_run(view, begin, n, [&](int64_t place, int64_t, int64_t i, int64_t run) {
    for (int64_t bits; run > 0; i += bits, place += bits, run -= bits) {  // to the end of a byte of `to`
      const int low = int(place % 8);
      bits = std::min(8 - i % 8, run);
      unsigned value = from[place / 8] >> low;
      if (low + bits > 8) value |= unsigned(from[place / 8 + 1]) << (8 - low);
      to[i / 8] |= uint8_t((value & ((1u << bits) - 1)) << i % 8);
    }
  });
}

}  // namespace leaky_ext::cpu
