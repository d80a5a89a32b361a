// The formulas in ATen: the operators' implementation for every device without kernels of its own, and what derivatives
// of higher order consist of. Whatever ATen can differentiate, batch or trace, it can do to these.
#pragma once

#include "operators.h"

namespace leaky_ext::formulas {

// Returns the dtype in which elements of `dtype` are computed: float64 for float64, else float32.
at::ScalarType opmath(at::ScalarType dtype);

at::Tensor is_negative(const at::Tensor& x);

// Returns the slope as a tensor of `dtype` that broadcasts against x.
at::Tensor broadcast_slope(const at::Tensor& x, const SlopeArg& slope, at::ScalarType dtype);

at::Tensor forward(const at::Tensor& x, const SlopeArg& slope, Formula formula);

// Returns factor * v for negative x, else 0. v is a gradient or tangent of the slope.
at::Tensor slope_term(const at::Tensor& x, const SlopeArg& slope, const at::Tensor& factor, const at::Tensor& v);

// Returns the sum of a * b over the negative elements of x, in alpha's shape and dtype.
at::Tensor sum_of_products(const at::Tensor& x, const SlopeArg& slope, const at::Tensor& a, const at::Tensor& b);

// Packs booleans to 1 bit per element, in memory order; unpacks them for a tensor with the sizes of `like` and the strides
// given, or a contiguous one.
at::Tensor pack(const at::Tensor& negative);
at::Tensor unpack(const at::Tensor& mask, const at::Tensor& like, at::OptionalSymIntArrayRef stride);

// Rebuilds an input from what was saved. It has the gradients of the original.
at::Tensor rebuild_input(const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
                         const SlopeArg& slope, Saved kind, at::OptionalSymIntArrayRef stride);

// Checks the arguments, and computes what is needed of grad_x and grad_alpha.
Pair backward(const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask, const SlopeArg& slope,
              Saved kind, at::OptionalSymIntArrayRef stride, Need need);

}  // namespace leaky_ext::formulas
