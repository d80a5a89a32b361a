// The operators at the dispatcher's Autograd key: what is saved for backward, gradients of every order, tangents.
//
// Nodes are written by hand, as ATen's are: torch.func does not support a torch::autograd::Function, which also costs
// 1.2 us more for forward and backward. backward is an operator too, so it has derivatives of any order.
#include "autograd.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/add.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "checks.h"
#include "composite.h"
#include "saving_node.h"

namespace leaky_ext::autograd {
namespace {

using at::Scalar;
using at::Tensor;
using torch::autograd::collect_next_edges;
using torch::autograd::compute_requires_grad;
using torch::autograd::isFwGradDefined;

bool under_functorch() {
  return c10::impl::tls_local_dispatch_key_set().included_.has(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

// Returns true if a transform, a tracer, a compiler or a tensor subclass observes the call. Then x is saved: a packed
// mask cannot be batched or sharded, and a compiler chooses what it saves.
bool is_observed(const Tensor& x) {
  constexpr c10::DispatchKeySet wrappers{c10::DispatchKey::Python, c10::DispatchKey::FuncTorchBatched,
                                         c10::DispatchKey::FuncTorchGradWrapper, c10::DispatchKey::Functionalize};
  using Modes = c10::impl::TorchDispatchModeTLS;
  using Key = c10::impl::TorchDispatchModeKey;
  if (x.key_set().has_any(wrappers) || under_functorch()) return true;
  return Modes::any_modes_set() &&
         (Modes::get_mode(Key::PROXY) || Modes::get_mode(Key::FUNCTIONAL) || Modes::get_mode(Key::FAKE));
}

bool has_kernels(const Tensor& x) { return (x.is_cpu() || x.is_cuda()) && x.layout() == at::kStrided; }

// Computes backward from x, in x's dtype: an x that was computed from y may be wider than grad.
Pair backward_from_input(const Tensor& grad, const Tensor& x, const SlopeArg& slope, Need need) {
  auto [grad_x, grad_alpha] =
      operators::Backward::call(grad.to(x.scalar_type()), x, std::nullopt, slope.alpha, slope.value, slope.channel_dim,
                                int64_t(Saved::Input), std::nullopt, need);
  return {grad_x.defined() ? grad_x.to(grad.scalar_type()) : grad_x, grad_alpha};
}

Tensor times_slope_where_negative(const Tensor& t, const Tensor& x, const SlopeArg& slope) {
  return std::get<0>(backward_from_input(t, x, slope, {true, false}));
}

void add(Tensor& sum, const Tensor& term) { sum = sum.defined() ? at::add(sum, term) : term; }

// Returns the operator's number for what was saved. 4 and 5 tell Inductor which formula produced y.
int64_t kind_number(const Unpacked& from, Need need) {
  if (from.kind != int64_t(Saved::Input)) return from.kind;
  if (from.formula == int64_t(Formula::ReLU) && !need[1]) return kInputOfReLU;
  return from.formula == int64_t(Formula::LeakyReLUSigned) ? kInputOfLeakyReLU : int64_t(Saved::Input);
}

struct ForwardNode : SavingNode<ForwardNode> {
  std::string name() const override {
    return formula == int64_t(Formula::ReLU) ? "StraightThroughReluBackward0" : "LearnableLeakyReluBackward0";
  }

  static variable_list gradients(const variable_list& grads, const Unpacked& from) {
    variable_list result(from.needed.size());
    const Tensor& grad = grads[0];
    if (!grad.defined()) return result;
    const Need need{from.needs(0), from.needs(1)};
    const auto symbolic = c10::fromIntArrayRefSlow(from.stride);
    const auto stride = from.stride.empty() ? at::OptionalSymIntArrayRef() : at::OptionalSymIntArrayRef(symbolic);
    Pair both;
    const Saved kind = saved_of(from.kind);
    if (kind != Saved::Input && (at::GradMode::is_enabled() || under_functorch())) {
      Tensor x = composite::rebuild_input(grad, from[kSaved], from[kMask], from.slope(), kind, stride);
      // grad_x requires grad even if grad is a constant; its derivative with respect to x is 0.
      if (kind == Saved::Mask && at::GradMode::is_enabled() && !under_functorch()) x.requires_grad_();
      both = backward_from_input(grad, x, from.slope(), need);
    } else {
      both = operators::Backward::call(grad, from[kSaved], from[kMask], from[kAlpha], from.value, from.channel_dim,
                                       kind_number(from, need), stride, need);
    }
    result[0] = std::move(std::get<0>(both));
    if (need[1]) result[1] = std::move(std::get<1>(both));
    return result;
  }
};

// Computes the derivatives of backward: by grad, x (saved) and alpha. u, v: the gradients of grad_x and grad_alpha.
struct BackwardNode : SavingNode<BackwardNode> {
  std::string name() const override { return "LearnableLeakyReluBackwardBackward0"; }

  static variable_list gradients(const variable_list& grads, const Unpacked& from) {
    variable_list result(from.needed.size());
    const Tensor &u = grads[0], &v = grads[1], &grad = *from[kGrad], &x = *from[kSaved];
    const SlopeArg slope = from.slope();
    if (from.needs(0) && u.defined()) add(result[0], times_slope_where_negative(u, x, slope));
    if (from.needs(0) && v.defined()) add(result[0], composite::slope_term(x, slope, x, v));
    if (from.needs(1) && v.defined()) add(result[1], composite::slope_term(x, slope, grad, v));
    if (from.needs(2) && u.defined()) add(result[2], composite::sum_of_products(x, slope, u, grad));
    return result;
  }
};

// Returns the tangent of leaky ReLU, for all formulas; undefined if no argument has a tangent.
Tensor forward_tangent(const Tensor& x, const SlopeArg& slope) {
  const Tensor& x_t = x._fw_grad(0);
  const Tensor alpha_t = slope.alpha ? slope.alpha->_fw_grad(0) : Tensor();
  Tensor result;
  if (!x_t.defined() && !alpha_t.defined()) return result;
  const Tensor primal = x._fw_primal(0);
  const OptionalTensor alpha = slope.alpha ? OptionalTensor(slope.alpha->_fw_primal(0)) : std::nullopt;
  const SlopeArg primal_slope{alpha, slope.value, slope.channel_dim};
  if (x_t.defined()) add(result, times_slope_where_negative(x_t, primal, primal_slope));
  if (alpha_t.defined()) add(result, composite::slope_term(primal, primal_slope, primal, alpha_t));
  return result;
}

// Chooses what is saved for backward: the only place that does. `in_place` and save="output" (LeakyReLUSigned) save y.
std::optional<Saved> choose_saved(const Tensor& x, const SlopeArg& slope, Formula formula, bool in_place) {
  const bool learned = compute_requires_grad(slope.alpha);
  if (!learned && !compute_requires_grad(x)) return std::nullopt;
  if (is_observed(x) || !has_kernels(x) || isFwGradDefined(x) || isFwGradDefined(slope.alpha)) return Saved::Input;
  if (!learned) return Saved::Mask;
  if (!in_place && formula != Formula::LeakyReLUSigned) return Saved::Input;
  TORCH_CHECK(formula != Formula::ReLU,
              "leaky_ext: straight_through_relu_ overwrites x, which the gradient of alpha is computed from: use "
              "straight_through_relu, or alpha.detach() if alpha is not to be learned");
  check_arguments(x, slope);
  if (positive_by_bounds(*slope.alpha, x.scalar_type())) return Saved::Output;
  if (!slope.alpha->is_cpu()) return Saved::OutputAndMask;  // reading the slopes would wait for the device
  return all_positive(*slope.alpha, x.scalar_type()) ? Saved::Output : Saved::OutputAndMask;
}

}  // namespace

Pair forward(c10::DispatchKeySet keys, const Tensor& x, const SlopeArg& slope, int64_t number, bool want_mask,
             bool in_place) {
  Formula formula = formula_of(number);
  const std::optional<Saved> kind = choose_saved(x, slope, formula, in_place);
  const bool needs_graph = kind.has_value();
  if (in_place) {
    torch::autograd::check_inplace(x, needs_graph);
    if ((needs_graph && kind == Saved::Input) || isFwGradDefined(x) || isFwGradDefined(slope.alpha)) {
      const auto [y, mask] = forward(keys, x.clone(), slope, number, want_mask, false);
      return {x.copy_(y), mask};
    }
    // only y is saved: its sign bit must be the sign of x
    if (kind == Saved::Output) formula = Formula::LeakyReLUSigned;
  }
  const bool takes_mask = want_mask || kind == Saved::Mask || kind == Saved::OutputAndMask;
  const Tensor tangent = forward_tangent(x, slope);

  decltype(make_node<ForwardNode>()) node;
  if (needs_graph) {  // edges before x changes: writing to a view changes its grad_fn
    node = make_node<ForwardNode>();
    node->set_next_edges(slope.alpha ? collect_next_edges(x, *slope.alpha) : collect_next_edges(x));
    node->formula = int64_t(formula);
    node->kind = int64_t(*kind);
    node->save_slope(slope);
    if (kind == Saved::Input) node->save(kSaved, x);
  }

  Pair outputs;
  auto& [y, mask] = outputs;
  {
    using namespace operators;
    const c10::impl::ExcludeDispatchKeyGuard guard(in_place ? c10::autograd_dispatch_keyset
                                                            : c10::autograd_dispatch_keyset_with_ADInplaceOrView);
    const auto call = [&](auto op) {
      return op.redispatch(keys & (in_place ? c10::after_autograd_keyset : c10::after_ADInplaceOrView_keyset), x,
                           slope.alpha, slope.value, slope.channel_dim, int64_t(formula));
    };
    if (takes_mask) {
      outputs = in_place ? Pair(x, call(ForwardMask_())) : call(ForwardMask());
    } else {
      y = in_place ? call(Forward_()) : call(Forward());
    }
  }

  if (needs_graph) {
    if (in_place) {
      torch::autograd::rebase_history(y, node);
    } else {
      torch::autograd::set_history(y, node);
    }
    if (node->saves_output()) node->save(kSaved, y, true, in_place && x.is_view());
    if (*kind >= Saved::OutputAndMask) node->save(kMask, mask);
    if (kind == Saved::Mask && !y.is_contiguous()) node->stride = y.strides().vec();
  }
  if (tangent.defined()) y._set_fw_grad(tangent, 0, false);
  return outputs;
}

Pair backward(c10::DispatchKeySet keys, const Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
              const OptionalTensor& alpha, const Scalar& value, int64_t channel_dim, int64_t kind,
              at::OptionalSymIntArrayRef stride, Need need) {
  const SlopeArg slope{alpha, value, channel_dim};
  const bool needs_graph = compute_requires_grad(grad, saved, alpha);
  const bool has_tangent = isFwGradDefined(grad) || isFwGradDefined(saved) || isFwGradDefined(alpha);
  if (has_tangent) return composite::backward(grad, saved, mask, alpha, value, channel_dim, kind, stride, need);
  if (saved_of(kind) != Saved::Input && needs_graph) {
    return backward_from_input(grad, composite::rebuild_input(grad, saved, mask, slope, saved_of(kind), stride), slope,
                               need);
  }
  Pair result;
  {
    const at::AutoDispatchBelowADInplaceOrView guard;
    result = operators::Backward::redispatch(keys & c10::after_ADInplaceOrView_keyset, grad, saved, mask, alpha, value,
                                             channel_dim, kind, stride, need);
  }
  auto& [grad_x, grad_alpha] = result;
  if (needs_graph) {
    auto node = make_node<BackwardNode>();
    node->set_next_edges(alpha ? collect_next_edges(grad, *saved, *alpha) : collect_next_edges(grad, *saved));
    node->save(kGrad, grad);
    node->save(kSaved, *saved);
    node->save_slope(slope);
    torch::autograd::set_history(variable_list{grad_x, grad_alpha}, node);
  }
  return result;
}

}  // namespace leaky_ext::autograd
