#include "autograd.h"

#include <ATen/TensorUtils.h>
#include <torch/csrc/autograd/custom_function.h>

namespace leaky_ext {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const Tensor* tensor_of(const Slope& alpha) { return std::get_if<Tensor>(&alpha); }

// What every Function here keeps: one tensor, the slope, and where the slope goes. What is the default is left out of
// the map, here and below: 0.5 us of 28, forward and backward.
void keep(AutogradContext* ctx, const Tensor& tensor, const Slope& alpha, int64_t channel_dim) {
  if (const Tensor* slopes = tensor_of(alpha)) {
    ctx->save_for_backward({tensor, *slopes});
    if (channel_dim != 1) ctx->saved_data["channel_dim"] = channel_dim;
  } else {
    ctx->save_for_backward({tensor});
    ctx->saved_data["alpha"] = std::get<double>(alpha);
  }
}

struct Kept {
  Tensor tensor;
  Slope alpha;
  int64_t channel_dim = 1;

  explicit Kept(AutogradContext* ctx) {
    const auto found = ctx->saved_data.find("channel_dim");
    if (found != ctx->saved_data.end()) channel_dim = found->second.toInt();
    variable_list saved = ctx->get_saved_variables();
    tensor = std::move(saved[0]);
    if (saved.size() > 1) {
      alpha = std::move(saved[1]);
    } else {
      alpha = ctx->saved_data["alpha"].toDouble();
    }
  }
};

bool must_be_differentiable() {
  const c10::DispatchKeySet included = c10::impl::tls_local_dispatch_key_set().included_;
  const bool plain = !at::GradMode::is_enabled() && !included.has(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
  TORCH_CHECK(plain || differentiable().from_input, "leaky_ext: in C++ the functions can be differentiated once");
  return !plain;
}

struct KeepInput : torch::autograd::Function<KeepInput> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>&, const Slope& alpha,
                        int64_t channel_dim, bool relu) {
    keep(ctx, x, alpha, channel_dim);
    return relu ? calls::straight_through_relu(x) : calls::learnable_leaky_relu(x, alpha, channel_dim, false);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Kept kept(ctx);
    const bool need_x = ctx->needs_input_grad(0), need_alpha = tensor_of(kept.alpha) && ctx->needs_input_grad(1);
    const auto from_input = [&](auto& function) {
      return function(grads[0], kept.tensor, kept.alpha, kept.channel_dim, need_x, need_alpha);
    };
    auto [grad_x, grad_alpha] =
        must_be_differentiable() ? from_input(differentiable().from_input) : from_input(calls::backward);
    return {grad_x, grad_alpha, Tensor(), Tensor(), Tensor()};
  }
};

struct KeepMask : torch::autograd::Function<KeepMask> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Slope& alpha, int64_t channel_dim, bool relu,
                        bool in_place) {
    Tensor y = x, mask;
    if (in_place) {
      mask = relu ? calls::straight_through_relu_mask_(x) : calls::learnable_leaky_relu_mask_(x, alpha, channel_dim);
      ctx->mark_dirty({x});
    } else {
      std::tie(y, mask) =
          relu ? calls::straight_through_relu_mask(x) : calls::learnable_leaky_relu_mask(x, alpha, channel_dim);
    }
    keep(ctx, mask, alpha, channel_dim);
    if (!y.is_contiguous()) ctx->saved_data["stride"] = y.strides().vec();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Kept kept(ctx);
    const auto found = ctx->saved_data.find("stride");
    const std::vector<int64_t> stride =
        found == ctx->saved_data.end() ? at::detail::defaultStrides(grads[0].sizes()) : found->second.toIntVector();
    const auto from_mask = [&](auto& function) {
      return function(grads[0], kept.tensor, kept.alpha, kept.channel_dim, stride);
    };
    Tensor grad_x = must_be_differentiable() ? from_mask(differentiable().from_mask) : from_mask(calls::backward_mask);
    return {grad_x, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Differentiable& differentiable() {
  static Differentiable functions;
  return functions;
}

Tensor keep_input(const Tensor& x, const Slope& alpha, int64_t channel_dim, bool relu) {
  const Tensor* slopes = tensor_of(alpha);
  return KeepInput::apply(x, slopes ? std::optional<Tensor>(*slopes) : std::nullopt, alpha, channel_dim, relu);
}

Tensor keep_mask(const Tensor& x, const Slope& alpha, int64_t channel_dim, bool relu, bool in_place) {
  return KeepMask::apply(x, alpha, channel_dim, relu, in_place);
}

}  // namespace leaky_ext
