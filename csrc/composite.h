// The formulas in ATen operations, for devices without kernels, derivatives of higher order, vmap and tracers.
#pragma once

#include "operators.h"

namespace leaky_ext::composite {

at::Tensor is_negative(const at::Tensor& x);

// Returns the slope as a tensor of `dtype` that broadcasts against x.
at::Tensor broadcast_slope(const at::Tensor& x, const SlopeArg& slope, at::ScalarType dtype);

at::Tensor forward(const at::Tensor& x, const SlopeArg& slope, Formula formula);

// Returns factor * v for negative x, else 0. v is a gradient or tangent of the slope.
at::Tensor slope_term(const at::Tensor& x, const SlopeArg& slope, const at::Tensor& factor, const at::Tensor& v);

// Returns the sum of a * b over the negative elements of x, in alpha's shape and dtype.
at::Tensor sum_of_products(const at::Tensor& x, const SlopeArg& slope, const at::Tensor& a, const at::Tensor& b);

// pack: packs booleans to 1 bit per element, in memory order. unpack: returns the booleans, with the sizes of `like`
// and the given strides (none: contiguous).
at::Tensor pack(const at::Tensor& negative);
at::Tensor unpack(const at::Tensor& mask, const at::Tensor& like, at::OptionalSymIntArrayRef stride);

// Computes an input from what was saved: with it, backward gives the gradients of x. If only the mask was saved, the
// input has the signs of x alone, and gives only grad_x.
at::Tensor rebuild_input(const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
                         const SlopeArg& slope, Saved kind, at::OptionalSymIntArrayRef stride);

Pair backward(const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
              const OptionalTensor& alpha, const at::Scalar& value, int64_t channel_dim, int64_t kind,
              at::OptionalSymIntArrayRef stride, Need need);

}  // namespace leaky_ext::composite
