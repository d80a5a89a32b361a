// The C++ API: the operators under torch::autograd::Function. Built by CMake alone; Python has autograd.py.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/scalar_tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include "leaky_ext.h"
#include "ops.h"

namespace leaky_ext {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

Tensor value(const Tensor& x, const Tensor& alpha, int64_t channel_dim, bool straight_through) {
  static const auto leaky =
      find<Tensor(const Tensor&, const Tensor&, int64_t, bool)>("leaky_ext::learnable_leaky_relu");
  static const auto relu = find<Tensor(const Tensor&)>("leaky_ext::straight_through_relu");
  return straight_through ? relu.call(x) : leaky.call(x, alpha, channel_dim, false);
}

Pair value_and_mask(const Tensor& x, const Tensor& alpha, int64_t channel_dim, bool straight_through) {
  static const auto leaky = find<Pair(const Tensor&, const Tensor&, int64_t)>("leaky_ext::learnable_leaky_relu_mask");
  static const auto relu = find<Pair(const Tensor&)>("leaky_ext::straight_through_relu_mask");
  return straight_through ? relu.call(x) : leaky.call(x, alpha, channel_dim);
}

struct Activation : torch::autograd::Function<Activation> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& alpha, int64_t channel_dim,
                        bool straight_through) {
    ctx->saved_data["channel_dim"] = channel_dim;
    if (alpha.requires_grad()) {
      ctx->save_for_backward({alpha, x});
      return value(x, alpha, channel_dim, straight_through);
    }
    auto [y, mask] = value_and_mask(x, alpha, channel_dim, straight_through);
    ctx->save_for_backward({alpha, mask});
    ctx->saved_data["stride"] = x.strides().vec();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    using Signature = Pair(const Tensor&, const Tensor&, const Tensor&, int64_t, std::array<bool, 2>);
    static const auto from_x = find<Signature>("leaky_ext::backward");
    static const auto from_mask =
        find<Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t, c10::SymIntArrayRef)>(
            "leaky_ext::backward_mask");
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &alpha = saved[0], &kept = saved[1];
    const int64_t channel_dim = ctx->saved_data["channel_dim"].toInt();
    const auto stride = ctx->saved_data.find("stride");
    if (stride != ctx->saved_data.end()) {
      const std::vector<c10::SymInt> symbolic = c10::fmap<c10::SymInt>(stride->second.toIntVector());
      return {from_mask.call(grads[0], kept, alpha, channel_dim, symbolic), Tensor(), Tensor(), Tensor()};
    }
    const at::AutoDispatchBelowADInplaceOrView below_autograd;  // alpha and x need gradients, this call has none
    TORCH_CHECK(!grads[0].requires_grad(), "leaky_ext: the C++ functions can be differentiated once");
    auto [grad_x, grad_alpha] =
        from_x.call(grads[0], kept, alpha, channel_dim, {ctx->needs_input_grad(0), ctx->needs_input_grad(1)});
    return {grad_x, grad_alpha, Tensor(), Tensor()};
  }
};

Tensor apply(const Tensor& x, const Tensor& alpha, int64_t channel_dim, bool straight_through) {
  if (straight_through) check_alpha(x, alpha, channel_dim);  // which plays no part before the backward
  if (at::GradMode::is_enabled() && (x.requires_grad() || alpha.requires_grad())) {
    return Activation::apply(x, alpha, channel_dim, straight_through);
  }
  return value(x, alpha, channel_dim, straight_through);
}

}  // namespace

Tensor learnable_leaky_relu(const Tensor& x, const Tensor& alpha, int64_t channel_dim) {
  return apply(x, alpha, channel_dim, false);
}

Tensor learnable_leaky_relu(const Tensor& x, double alpha) {
  return learnable_leaky_relu(x, at::scalar_tensor(alpha, at::kDouble));
}

Tensor straight_through_relu(const Tensor& x, const Tensor& alpha, int64_t channel_dim) {
  return apply(x, alpha, channel_dim, true);
}

Tensor straight_through_relu(const Tensor& x, double alpha) {
  return straight_through_relu(x, at::scalar_tensor(alpha, at::kDouble));
}

}  // namespace leaky_ext
