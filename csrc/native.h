// The operators on tensors of the devices that have kernels: checks, allocation, launch.
#pragma once

#include "operators.h"

namespace leaky_ext::native {

// Returns y and the mask; the mask is undefined if not wanted.
Pair forward(const at::Tensor& x, const SlopeArg& slope, int64_t formula, bool want_mask, bool in_place);

Pair backward(const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
              const OptionalTensor& alpha, const at::Scalar& value, int64_t channel_dim, int64_t kind,
              at::OptionalIntArrayRef stride, Need need);

}  // namespace leaky_ext::native
