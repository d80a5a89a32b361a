// The operators at the dispatcher's Autograd key.
#pragma once

#include "operators.h"

namespace leaky_ext::autograd {

// forward and forward_mask, in place or not. The mask is undefined unless it is wanted or saved.
Pair forward(c10::DispatchKeySet keys, const at::Tensor& x, const SlopeArg& slope, int64_t formula, bool want_mask,
             bool in_place);
Pair backward(c10::DispatchKeySet keys, const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
              const OptionalTensor& alpha, const at::Scalar& value, int64_t channel_dim, int64_t kind,
              at::OptionalSymIntArrayRef stride, Need need);

// Whether alpha comes from clamp_slope, unchanged, with a lower bound that is positive in alpha's dtype and in that of
// the computation. Never waits for the device.
bool positive_by_bounds(const at::Tensor& alpha, at::ScalarType x_dtype);

}  // namespace leaky_ext::autograd
