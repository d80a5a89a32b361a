// leaky_ext for C++: differentiable activations for libtorch. Link with leaky_ext::leaky_ext (find_package(leaky_ext)).
//
//   negative(x) = not (x >= 0); y = x, or alpha * x where negative; d(alpha) = sum of grad * x where negative.
//
// x: float64, float32, float16 or bfloat16, any shape, strides and device that the library was built for.
// alpha: one element, or one for each index of dimension channel_dim, or as many dimensions as x and broadcasting to
// it; any of the dtypes of x. Its gradient has its shape and dtype. Differentiable to any order.
// Throws c10::Error (TypeError, ValueError, IndexError among them) for what does not fit.
#pragma once

#include <ATen/core/Tensor.h>

namespace leaky_ext {

#define LEAKY_EXT_API __attribute__((visibility("default")))

// Leaky ReLU. Saves x for backward if alpha requires grad, else 1 bit per element.
LEAKY_EXT_API at::Tensor learnable_leaky_relu(const at::Tensor& x, const at::Tensor& alpha, int64_t channel_dim = 1);
LEAKY_EXT_API at::Tensor learnable_leaky_relu(const at::Tensor& x, double alpha);

// ReLU, with the gradients of leaky ReLU.
LEAKY_EXT_API at::Tensor straight_through_relu(const at::Tensor& x, const at::Tensor& alpha, int64_t channel_dim = 1);
LEAKY_EXT_API at::Tensor straight_through_relu(const at::Tensor& x, double alpha = 0.01);

}  // namespace leaky_ext
