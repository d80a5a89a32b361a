// What ops.cpp offers beside the operators that it registers.
#pragma once

#include <ATen/core/Tensor.h>

namespace leaky_ext {

// Raises the errors that an operator would raise for these arguments.
void check_alpha(const at::Tensor& x, const at::Tensor& alpha, int64_t channel_dim);

// Whether every slope is greater than 0, so that the sign of an output tells the sign of its input. CPU tensors only.
bool alpha_is_positive(const at::Tensor& alpha);

}  // namespace leaky_ext
