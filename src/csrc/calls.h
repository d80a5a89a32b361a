// The operators as C++ functions. They call the dispatcher, so that tensor subclasses and dispatch modes see the
// operators, but skip the autograd key: gradients are attached above (autograd.h, leaky_ext/autograd.py).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <variant>
#include <vector>

namespace leaky_ext {

using Slope = std::variant<at::Tensor, double>;
using Pair = std::tuple<at::Tensor, at::Tensor>;

namespace calls {

at::Tensor learnable_leaky_relu(const at::Tensor& x, const Slope& alpha, int64_t channel_dim, bool positive_zero);
void learnable_leaky_relu_(const at::Tensor& x, const Slope& alpha, int64_t channel_dim, bool positive_zero);
Pair learnable_leaky_relu_mask(const at::Tensor& x, const Slope& alpha, int64_t channel_dim);
at::Tensor learnable_leaky_relu_mask_(const at::Tensor& x, const Slope& alpha, int64_t channel_dim);
at::Tensor straight_through_relu(const at::Tensor& x);
void straight_through_relu_(const at::Tensor& x);
Pair straight_through_relu_mask(const at::Tensor& x);
at::Tensor straight_through_relu_mask_(const at::Tensor& x);

// What is not needed comes back undefined.
Pair backward(const at::Tensor& grad, const at::Tensor& x, const Slope& alpha, int64_t channel_dim, bool need_x,
              bool need_alpha);
at::Tensor backward_mask(const at::Tensor& grad, const at::Tensor& mask, const Slope& alpha, int64_t channel_dim,
                         const std::vector<int64_t>& stride);
Pair backward_output(const at::Tensor& grad, const at::Tensor& y, const std::optional<at::Tensor>& mask,
                     const at::Tensor& alpha, int64_t channel_dim, bool need_x, bool need_alpha);

}  // namespace calls
}  // namespace leaky_ext
