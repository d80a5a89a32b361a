// The activations with a gradient, for eager calls: what leaky_ext/autograd.py would do, without Python in the way of a
// small call (fwd + bwd of 100 elements: 36 us in Python, 26 us here).
#pragma once

#include <functional>

#include "calls.h"

namespace leaky_ext {

// y; keeps x and alpha. straight_through_relu if `relu`, else learnable_leaky_relu.
at::Tensor keep_input(const at::Tensor& x, const Slope& alpha, int64_t channel_dim, bool relu);

// y; keeps 1 bit an element: whether x is negative. For an alpha without gradient.
at::Tensor keep_mask(const at::Tensor& x, const Slope& alpha, int64_t channel_dim, bool relu, bool in_place);

// Takes the place of a backward pass that is itself differentiated (create_graph) or runs under a torch.func transform.
struct Differentiable {
  std::function<Pair(const at::Tensor& grad, const at::Tensor& x, const Slope& alpha, int64_t channel_dim, bool need_x,
                     bool need_alpha)>
      from_input;
  std::function<at::Tensor(const at::Tensor& grad, const at::Tensor& mask, const Slope& alpha, int64_t channel_dim,
                           const std::vector<int64_t>& stride)>
      from_mask;
};
Differentiable& differentiable();

}  // namespace leaky_ext
