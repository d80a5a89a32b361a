// What the kernels must compute: element by element, sums in long double. The one statement of the formulas in tests of
// C++.
#pragma once

#include "buffer.h"

using leaky_ext::BackwardArgs;
using leaky_ext::Formula;
using leaky_ext::ForwardArgs;
using leaky_ext::Saved;

// Arithmetic is done in float, except for float64.
inline double rounded(DType dtype, double value) { return dtype == DType::Float64 ? value : double(float(value)); }

inline int64_t channel_of(const leaky_ext::Shape& shape, int64_t i) { return i / shape.inner % shape.channels; }

inline double slope_of(DType dtype, const Alpha& alpha, int64_t channel) {
  return rounded(dtype, alpha.data ? get(alpha.dtype, alpha.data, channel) : alpha.value);
}

inline double expected_y(const ForwardArgs& args, double x, double alpha) {
  if (args.formula == Formula::ReLU) return x < 0 ? 0.0 : x;
  if (!(x >= 0)) return round_to(args.dtype, rounded(args.dtype, alpha * x));
  return args.formula == Formula::LeakyReLUSigned && x == 0 ? 0.0 : x;
}

// Fills y, and mask if there is one, as forward is to.
inline void oracle_forward(const ForwardArgs& args, Buffer& y, uint8_t* mask) {
  const int64_t numel = args.shape.numel();
  if (mask != nullptr) std::memset(mask, 0, size_t(numel + 7) / 8);
  for (int64_t i = 0; i < numel; ++i) {
    const double x = get(args.dtype, args.x, place(args.x_view, i));
    const double alpha = slope_of(args.dtype, args.alpha, channel_of(args.shape, i));
    y.set(place(args.y_view, i), expected_y(args, x, alpha));
    if (mask != nullptr && !(x >= 0)) mask[i / 8] |= uint8_t(1 << i % 8);
  }
}

struct Sum {
  long double value = 0, magnitude = 0;
};

// Fills grad_x, and sums[channel], as backward is to.
inline void oracle_backward(const BackwardArgs& args, Buffer& grad_x, Sum* sums) {
  for (int64_t i = 0; i < args.shape.numel(); ++i) {
    const int64_t to = place(args.output_view, i);
    const double grad = get(args.dtype, args.grad, place(args.grad_view, i));
    const double saved = args.kind == Saved::Mask ? 0 : get(args.dtype, args.saved, place(args.saved_view, i));
    const double alpha = slope_of(args.dtype, args.alpha, channel_of(args.shape, i));
    const bool negative = args.kind == Saved::Input    ? !(saved >= 0)
                          : args.kind == Saved::Output ? std::signbit(saved) || std::isnan(saved)
                                                       : (args.mask[to / 8] >> to % 8 & 1) != 0;
    grad_x.set(to, negative ? rounded(args.dtype, alpha * grad) : grad);
    if (!negative || sums == nullptr) continue;
    const double x = args.kind == Saved::Input ? saved : rounded(args.dtype, saved / alpha);
    Sum& sum = sums[channel_of(args.shape, i)];
    sum.value += static_cast<long double>(grad) * x;
    sum.magnitude += std::fabs(static_cast<long double>(grad) * x);
  }
}
