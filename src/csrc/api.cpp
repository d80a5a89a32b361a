// The C++ API. Built by CMake alone.
#include <ATen/core/grad_mode.h>

#include "autograd.h"
#include "checks.h"
#include "leaky_ext.h"

namespace leaky_ext {
namespace {

using at::Tensor;

Tensor activation(const Tensor& x, const Slope& alpha, int64_t channel_dim, bool relu) {
  const Tensor* slopes = std::get_if<Tensor>(&alpha);
  if (relu && slopes) check_alpha(x, *slopes, channel_dim);  // which plays no part before the backward
  if (at::GradMode::is_enabled()) {
    if (slopes && slopes->requires_grad()) return keep_input(x, alpha, channel_dim, relu);
    if (x.requires_grad()) return keep_mask(x, alpha, channel_dim, relu, false);
  }
  return relu ? calls::straight_through_relu(x) : calls::learnable_leaky_relu(x, alpha, channel_dim, false);
}

}  // namespace

Tensor learnable_leaky_relu(const Tensor& x, const Tensor& alpha, int64_t channel_dim) {
  return activation(x, alpha, channel_dim, false);
}

Tensor learnable_leaky_relu(const Tensor& x, double alpha) { return activation(x, alpha, 1, false); }

Tensor straight_through_relu(const Tensor& x, const Tensor& alpha, int64_t channel_dim) {
  return activation(x, alpha, channel_dim, true);
}

Tensor straight_through_relu(const Tensor& x, double alpha) { return activation(x, alpha, 1, true); }

}  // namespace leaky_ext
