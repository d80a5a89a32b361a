// The operators' kernels for the dispatcher's Autograd key. One function each, with the operator's arguments.
#pragma once

#include "operators.h"

namespace leaky_ext::autograd {

at::Tensor forward(c10::DispatchKeySet keys, const at::Tensor& x, const OptionalTensor& alpha, const at::Scalar& value,
                   int64_t channel_dim, int64_t formula);
Pair forward_mask(c10::DispatchKeySet keys, const at::Tensor& x, const OptionalTensor& alpha, const at::Scalar& value,
                  int64_t channel_dim, int64_t formula);
at::Tensor forward_(c10::DispatchKeySet keys, const at::Tensor& x, const OptionalTensor& alpha, const at::Scalar& value,
                    int64_t channel_dim, int64_t formula);
at::Tensor forward_mask_(c10::DispatchKeySet keys, const at::Tensor& x, const OptionalTensor& alpha,
                         const at::Scalar& value, int64_t channel_dim, int64_t formula);
Pair backward(c10::DispatchKeySet keys, const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
              const OptionalTensor& alpha, const at::Scalar& value, int64_t channel_dim, int64_t kind,
              at::OptionalSymIntArrayRef stride, Need need);

// Whether alpha comes from clamp_slope, unchanged, with a lower bound that is positive in alpha's dtype and in that of
// the computation. Never waits for the device.
bool positive_by_bounds(const at::Tensor& alpha, at::ScalarType x_dtype);

}  // namespace leaky_ext::autograd
