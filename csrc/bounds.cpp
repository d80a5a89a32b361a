// clamp_slope: clamps a slope to its bounds. Its gradient moves a slope outside of them back in.
#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/library.h>

#include "autograd.h"
#include "saving_node.h"

namespace leaky_ext::autograd {
namespace {

using at::Tensor;

// Saves alpha and the clamped slope. The gradient is 0 only if descent moves the slope further out: above the bounds
// with a negative gradient, below them with a positive one. It consists of ATen operations, for every order and mode.
struct ClampNode : SavingNode<ClampNode> {
  double low = 0;

  std::string name() const override { return "ClampSlopeBackward0"; }

  static variable_list gradients(const variable_list& grads, const Unpacked& from) {
    const Tensor& grad = grads[0];
    if (!grad.defined()) return variable_list(1);
    const Tensor side = at::sign(at::sub(from[kAlpha]->detach(), from[kSaved]->detach()));
    return {at::masked_fill(grad, at::lt(at::mul(side, grad.detach()), 0), 0)};
  }
};

Tensor clamp_slope(c10::DispatchKeySet keys, const Tensor& alpha, double low, double high) {
  Tensor y;
  {
    const at::AutoDispatchBelowADInplaceOrView guard;
    y = operators::ClampSlope::redispatch(keys & c10::after_ADInplaceOrView_keyset, alpha, low, high);
  }
  if (torch::autograd::compute_requires_grad(alpha)) {
    auto node = make_node<ClampNode>();
    node->set_next_edges(torch::autograd::collect_next_edges(alpha));
    node->kind = int64_t(Saved::Output);
    node->low = low;
    node->save(kAlpha, alpha);
    torch::autograd::set_history(y, node);
    node->save(kSaved, y, true);
  }
  if (torch::autograd::isFwGradDefined(alpha)) {  // the derivative of the value: a tangent has no descent direction
    const Tensor primal = alpha._fw_primal(0);
    const Tensor outside = at::logical_or(at::lt(primal, low), at::gt(primal, high));
    y._set_fw_grad(at::masked_fill(alpha._fw_grad(0), outside, 0), 0, false);
  }
  return y;
}

}  // namespace

bool positive_by_bounds(const Tensor& alpha, at::ScalarType x_dtype) {
  const auto* node = dynamic_cast<const ClampNode*>(alpha.grad_fn().get());
  if (node == nullptr || alpha._version() != 0) return false;
  return AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, alpha.scalar_type(), "positive_by_bounds", [&] {
    const auto low = static_cast<scalar_t>(node->low);
    return x_dtype == at::kDouble ? double(low) > 0 : float(low) > 0;
  });
}

TORCH_LIBRARY_FRAGMENT(leaky_ext, m) { m.def(operators::ClampSlope::kSchema, {at::Tag::pt2_compliant_tag}); }

TORCH_LIBRARY_IMPL(leaky_ext, CompositeExplicitAutograd, m) {
  m.impl("clamp_slope", [](const Tensor& alpha, double low, double high) { return at::clamp(alpha, low, high); });
}

TORCH_LIBRARY_IMPL(leaky_ext, Autograd, m) { m.impl("clamp_slope", clamp_slope); }

}  // namespace leaky_ext::autograd
