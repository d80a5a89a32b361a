// The operators at the dispatcher's Autograd key.
#pragma once

#include "operators.h"

namespace leaky_ext::autograd {

// Computes forward or forward_mask, in place or not. The mask is undefined if it is neither wanted nor saved.
Pair forward(c10::DispatchKeySet keys, const at::Tensor& x, const SlopeArg& slope, int64_t formula, bool want_mask,
             bool in_place);
Pair backward(c10::DispatchKeySet keys, const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
              const OptionalTensor& alpha, const at::Scalar& value, int64_t channel_dim, int64_t kind,
              at::OptionalSymIntArrayRef stride, Need need);

// Returns true if alpha is an unmodified clamp_slope result with a positive lower bound. The bound must be positive in
// alpha's dtype and in the compute dtype. Never waits for the device.
bool positive_by_bounds(const at::Tensor& alpha, at::ScalarType x_dtype);

}  // namespace leaky_ext::autograd
