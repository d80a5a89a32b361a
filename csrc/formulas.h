// The formulas in ATen: the operators' implementation for every device without kernels of its own, and what derivatives
// of higher order consist of. Whatever ATen can differentiate, batch or trace, it can do to these.
#pragma once

#include "operators.h"

namespace leaky_ext::formulas {

// The dtype in which elements of `dtype` are computed: float64 for itself, else float32.
at::ScalarType opmath(at::ScalarType dtype);

at::Tensor is_negative(const at::Tensor& x);

// The slope as a tensor of `dtype` that broadcasts against x.
at::Tensor broadcast_slope(const at::Tensor& x, const SlopeArg& slope, at::ScalarType dtype);

at::Tensor forward(const at::Tensor& x, const SlopeArg& slope, Formula formula);
Pair backward(const at::Tensor& grad, const at::Tensor& x, const SlopeArg& slope, Need need);

// factor * v where x is negative, else 0, where v is a gradient or tangent of the slope.
at::Tensor slope_term(const at::Tensor& x, const SlopeArg& slope, const at::Tensor& factor, const at::Tensor& v);

// The sum of a * b over the negative elements of x, to alpha's shape and dtype.
at::Tensor sum_of_products(const at::Tensor& x, const SlopeArg& slope, const at::Tensor& a, const at::Tensor& b);

// 1 bit per element, in memory order; and back to booleans, for a tensor with the sizes of `like` and the strides given
// (contiguous without).
at::Tensor pack(const at::Tensor& negative);
at::Tensor unpack(const at::Tensor& mask, const at::Tensor& like, at::OptionalSymIntArrayRef stride);

// An x that has the gradients of the one that `saved` and `mask` were saved of.
at::Tensor rebuild_input(const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
                         const SlopeArg& slope, Saved kind, at::OptionalSymIntArrayRef stride);

}  // namespace leaky_ext::formulas
