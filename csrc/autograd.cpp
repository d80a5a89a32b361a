// The operators at the dispatcher's Autograd key: what is saved for backward, gradients of every order, tangents.
//
// Nodes are written by hand, as ATen's own are: functorch refuses a torch::autograd::Function, and it costs 1.2 us more
// for forward and backward. backward is an operator of the same kind, so derivatives of any order follow.
#include "autograd.h"

#include <ATen/TracerMode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/add.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>

#include "checks.h"
#include "formulas.h"

namespace leaky_ext::autograd {
namespace {

using at::Scalar;
using at::Tensor;
using torch::autograd::collect_next_edges;
using torch::autograd::CompiledNodeArgs;
using torch::autograd::isFwGradDefined;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::SwapSavedVariables;
using torch::autograd::variable_list;

// A node is held by a shared_ptr up to torch 2.12, by an intrusive_ptr from 2.13 on.
using NodePtr = std::decay_t<decltype(std::declval<torch::autograd::Edge>().function)>;

template <typename T, typename Ptr = NodePtr, typename Base = Node>
auto make_node() {
  if constexpr (std::is_same_v<Ptr, std::shared_ptr<Base>>) {
    return std::shared_ptr<T>(new T(), [](Base* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<T>();
  }
}

bool requires_grad(const Tensor& t) { return t.requires_grad(); }
bool requires_grad(const OptionalTensor& t) { return t && t->requires_grad(); }

template <typename... Tensors>
bool any_requires_grad(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && (requires_grad(tensors) || ...);
}

OptionalTensor defined(Tensor t) { return t.defined() ? OptionalTensor(std::move(t)) : std::nullopt; }

bool under_functorch() {
  return c10::impl::tls_local_dispatch_key_set().included_.has(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

// Whether a transform, a tracer, a compiler or a tensor subclass looks at the call. Then x is what is saved: a packed
// mask cannot be batched or sharded, and a compiler wants to choose what it saves.
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

// What backward is given of x.
struct Kept {
  OptionalTensor saved, mask;
  Saved kind = Saved::Input;
  std::vector<int64_t> stride;  // where the mask alone was kept and y is not contiguous
};

Pair call_backward(const Tensor& grad, const Kept& kept, const SlopeArg& slope, Need need) {
  const auto stride = c10::fromIntArrayRefSlow(kept.stride);
  return operators::Backward::call(
      grad, kept.saved, kept.mask, slope.alpha, slope.value, slope.channel_dim, int64_t(kept.kind),
      kept.stride.empty() ? at::OptionalSymIntArrayRef() : at::OptionalSymIntArrayRef(stride), need);
}

// The same from an x that is rebuilt, in a form that can be differentiated and batched.
Pair backward_from_rebuilt(const Tensor& grad, const Tensor& x, const SlopeArg& slope, Need need) {
  auto [grad_x, grad_alpha] = call_backward(grad.to(x.scalar_type()), {x, std::nullopt, Saved::Input, {}}, slope, need);
  return {grad_x.defined() ? grad_x.to(grad.scalar_type()) : grad_x, grad_alpha};
}

Tensor times_slope_where_negative(const Tensor& t, const Tensor& x, const SlopeArg& slope) {
  return std::get<0>(call_backward(t, {x, std::nullopt, Saved::Input, {}}, slope, {true, false}));
}

void add(Tensor& sum, const Tensor& term) { sum = sum.defined() ? at::add(sum, term) : term; }

// A slope that outlives the call.
struct SavedSlope {
  SavedVariable alpha;
  Scalar value;
  int64_t channel_dim = 1;

  void save(const SlopeArg& slope) {
    if (slope.alpha) alpha = SavedVariable(*slope.alpha, false);
    value = slope.value;
    channel_dim = slope.channel_dim;
  }
};

// Saved tensors as compiled autograd asks for them.
struct SavingNode : Node {
  SavedVariable saved, mask;
  SavedSlope slope;

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    saved.reset_data();
    mask.reset_data();
    slope.alpha.reset_data();
  }

  void compiled_args(CompiledNodeArgs& args) const override {
    args.collect(saved, saved_is_output());
    args.collect(mask, false);
    args.collect(slope.alpha, false);
    args.collect(slope.value);
    args.collect(slope.channel_dim);
  }

  variable_list apply_with_saved(const variable_list& grads, SwapSavedVariables& swap) override {
    swap.before(saved);
    swap.before(mask);
    swap.before(slope.alpha);
    swap.before(slope.value);
    variable_list result = apply(variable_list(grads));
    swap.after(saved);
    swap.after(mask);
    swap.after(slope.alpha);
    swap.after(slope.value);
    return result;
  }

  virtual bool saved_is_output() const { return false; }
};

struct ForwardNode : SavingNode {
  Formula formula = Formula::LeakyReLU;
  Saved kind = Saved::Input;
  std::vector<int64_t> stride;

  std::string name() const override {
    return formula == Formula::ReLU ? "StraightThroughReluBackward0" : "LearnableLeakyReluBackward0";
  }

  bool saved_is_output() const override { return kind == Saved::Output || kind == Saved::OutputAndMask; }

  void compiled_args(CompiledNodeArgs& args) const override {
    SavingNode::compiled_args(args);
    args.collect(int64_t(kind));
    args.collect(stride);
  }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    variable_list result(num_outputs());
    const Tensor& grad = grads[0];
    if (!grad.defined()) return result;
    const Need need{task_should_compute_output(0), result.size() > 1 && task_should_compute_output(1)};
    const OptionalTensor alpha = defined(slope.alpha.unpack());
    const SlopeArg slope_arg{alpha, slope.value, slope.channel_dim};
    const Kept kept{defined(saved.unpack(getptr())), defined(mask.unpack()), kind, stride};
    Pair both;
    if (kind != Saved::Input && (at::GradMode::is_enabled() || under_functorch())) {
      const auto symbolic = c10::fromIntArrayRefSlow(stride);
      Tensor x =
          formulas::rebuild_input(grad, kept.saved, kept.mask, slope_arg, kind,
                                  stride.empty() ? at::OptionalSymIntArrayRef() : at::OptionalSymIntArrayRef(symbolic));
      // grad_x joins a graph even where grad is a constant; its derivative by x is 0.
      if (kind == Saved::Mask && at::GradMode::is_enabled() && !under_functorch()) x.requires_grad_();
      both = backward_from_rebuilt(grad, x, slope_arg, need);
    } else {
      both = call_backward(grad, kept, slope_arg, need);
    }
    result[0] = std::move(std::get<0>(both));
    if (need[1]) result[1] = std::move(std::get<1>(both));
    return result;
  }
};

// The derivative of backward by grad, x (saved) and alpha, where u and v are what arrives for grad_x and grad_alpha.
struct BackwardNode : SavingNode {
  SavedVariable grad;

  std::string name() const override { return "LearnableLeakyReluBackwardBackward0"; }

  void release_variables() override {
    SavingNode::release_variables();
    grad.reset_data();
  }

  void compiled_args(CompiledNodeArgs& args) const override {
    SavingNode::compiled_args(args);
    args.collect(grad, false);
  }

  variable_list apply_with_saved(const variable_list& grads, SwapSavedVariables& swap) override {
    swap.before(grad);
    variable_list result = SavingNode::apply_with_saved(grads, swap);
    swap.after(grad);
    return result;
  }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    variable_list result(num_outputs());
    const Tensor &u = grads[0], &v = grads[1];
    const Tensor g = grad.unpack(), x = saved.unpack();
    const OptionalTensor alpha = defined(slope.alpha.unpack());
    const SlopeArg slope_arg{alpha, slope.value, slope.channel_dim};
    const auto needed = [&](size_t i) { return i < result.size() && task_should_compute_output(i); };
    if (needed(0) && u.defined()) add(result[0], times_slope_where_negative(u, x, slope_arg));
    if (needed(0) && v.defined()) add(result[0], formulas::slope_term(x, slope_arg, x, v));
    if (needed(1) && v.defined()) add(result[1], formulas::slope_term(x, slope_arg, g, v));
    if (needed(2) && u.defined()) add(result[2], formulas::sum_of_products(x, slope_arg, u, g));
    return result;
  }
};

// Both formulas have the tangent of leaky ReLU. Undefined where nothing has a tangent.
Tensor forward_tangent(const Tensor& x, const SlopeArg& slope) {
  const Tensor& x_t = x._fw_grad(0);
  const Tensor alpha_t = slope.alpha ? slope.alpha->_fw_grad(0) : Tensor();
  Tensor result;
  if (!x_t.defined() && !alpha_t.defined()) return result;
  const Tensor primal = x._fw_primal(0);
  const OptionalTensor alpha = slope.alpha ? OptionalTensor(slope.alpha->_fw_primal(0)) : std::nullopt;
  const SlopeArg primal_slope{alpha, slope.value, slope.channel_dim};
  if (x_t.defined()) add(result, times_slope_where_negative(x_t, primal, primal_slope));
  if (alpha_t.defined()) add(result, formulas::slope_term(primal, primal_slope, primal, alpha_t));
  return result;
}

// What is saved for backward, decided here alone. `in_place` and save="output" (LeakyReLUSigned) keep y.
std::optional<Saved> choose_saved(const Tensor& x, const SlopeArg& slope, Formula formula, bool in_place,
                                  bool observed) {
  const bool learned = any_requires_grad(slope.alpha);
  if (!learned && !any_requires_grad(x)) return std::nullopt;
  if (observed || !has_kernels(x) || isFwGradDefined(x) || isFwGradDefined(slope.alpha)) return Saved::Input;
  if (!learned) return Saved::Mask;
  if (!in_place && formula != Formula::LeakyReLUSigned) return Saved::Input;
  TORCH_CHECK(formula != Formula::ReLU,
              "leaky_ext: straight_through_relu_ overwrites x, which the gradient of alpha is computed from: use "
              "straight_through_relu, or alpha.detach() if alpha is not to be learned");
  check_arguments(x, slope);
  if (!slope.alpha->is_cpu()) return Saved::OutputAndMask;  // to look at the slopes would be to wait for the device
  const SlopeSigns signs = signs_of(*slope.alpha, x.scalar_type());
  TORCH_CHECK_VALUE(signs != SlopeSigns::Zero,
                    "leaky_ext: x cannot be rebuilt from the output where alpha is 0: use save='input'; alpha is ",
                    slope.alpha->detach());
  return signs == SlopeSigns::Positive ? Saved::Output : Saved::OutputAndMask;
}

// forward and forward_mask, in place or not; the mask is undefined unless it is wanted or kept.
Pair forward_any(c10::DispatchKeySet keys, const Tensor& x, const SlopeArg& slope, int64_t number, bool want_mask,
                 bool in_place) {
  Formula formula = formula_of(number);
  if (x.is_nested()) {
    TORCH_CHECK(!want_mask && !in_place, "leaky_ext: nested tensors are served out of place and without a mask");
    return {formulas::differentiable(x, slope, formula), Tensor()};
  }
  const bool observed = is_observed(x);
  const std::optional<Saved> kind = choose_saved(x, slope, formula, in_place, observed);
  const bool needs_graph = kind.has_value();
  if (in_place) {
    torch::autograd::check_inplace(x, needs_graph);
    if ((needs_graph && kind == Saved::Input) || isFwGradDefined(x) || isFwGradDefined(slope.alpha)) {
      const auto [y, mask] = forward_any(keys, x.clone(), slope, number, want_mask, false);
      return {x.copy_(y), mask};
    }
    // y alone will tell the sign of x
    if (kind == Saved::Output) formula = Formula::LeakyReLUSigned;
  }
  const bool takes_mask = want_mask || kind == Saved::Mask || kind == Saved::OutputAndMask;
  const Tensor tangent = forward_tangent(x, slope);

  decltype(make_node<ForwardNode>()) node;
  if (needs_graph) {  // edges before x changes: afterwards a view that was written to has another grad_fn
    node = make_node<ForwardNode>();
    node->set_next_edges(slope.alpha ? collect_next_edges(x, *slope.alpha) : collect_next_edges(x));
    node->formula = formula;
    node->kind = *kind;
    node->slope.save(slope);
    if (kind == Saved::Input) node->saved = SavedVariable(x, false);
  }

  Tensor y, mask;
  {
    using namespace operators;
    const int64_t f = int64_t(formula);
    if (in_place) {
      const at::AutoDispatchBelowAutograd guard;
      const c10::DispatchKeySet below = keys & c10::after_autograd_keyset;
      if (takes_mask) {
        mask = ForwardMask_::redispatch(below, x, slope.alpha, slope.value, slope.channel_dim, f);
        y = x;
      } else {
        y = Forward_::redispatch(below, x, slope.alpha, slope.value, slope.channel_dim, f);
      }
    } else {
      const at::AutoDispatchBelowADInplaceOrView guard;
      const c10::DispatchKeySet below = keys & c10::after_ADInplaceOrView_keyset;
      if (takes_mask) {
        std::tie(y, mask) = ForwardMask::redispatch(below, x, slope.alpha, slope.value, slope.channel_dim, f);
      } else {
        y = Forward::redispatch(below, x, slope.alpha, slope.value, slope.channel_dim, f);
      }
    }
  }

  if (needs_graph) {
    if (in_place) {
      torch::autograd::rebase_history(y, node);
    } else {
      torch::autograd::set_history(y, node);
    }
    if (node->saved_is_output()) node->saved = SavedVariable(y, true, in_place && x.is_view());
    if (mask.defined() && kind != Saved::Input) node->mask = SavedVariable(mask, false);
    if (kind == Saved::Mask && !y.is_contiguous()) node->stride = y.strides().vec();
  }
  if (tangent.defined()) y._set_fw_grad(tangent, 0, false);
  return {std::move(y), std::move(mask)};
}

}  // namespace

Tensor forward(c10::DispatchKeySet keys, const Tensor& x, const OptionalTensor& alpha, const Scalar& value,
               int64_t channel_dim, int64_t formula) {
  return std::get<0>(forward_any(keys, x, {alpha, value, channel_dim}, formula, false, false));
}

Pair forward_mask(c10::DispatchKeySet keys, const Tensor& x, const OptionalTensor& alpha, const Scalar& value,
                  int64_t channel_dim, int64_t formula) {
  return forward_any(keys, x, {alpha, value, channel_dim}, formula, true, false);
}

Tensor forward_(c10::DispatchKeySet keys, const Tensor& x, const OptionalTensor& alpha, const Scalar& value,
                int64_t channel_dim, int64_t formula) {
  return std::get<0>(forward_any(keys, x, {alpha, value, channel_dim}, formula, false, true));
}

Tensor forward_mask_(c10::DispatchKeySet keys, const Tensor& x, const OptionalTensor& alpha, const Scalar& value,
                     int64_t channel_dim, int64_t formula) {
  return std::get<1>(forward_any(keys, x, {alpha, value, channel_dim}, formula, true, true));
}

Pair backward(c10::DispatchKeySet keys, const Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
              const OptionalTensor& alpha, const Scalar& value, int64_t channel_dim, int64_t kind,
              at::OptionalSymIntArrayRef stride, Need need) {
  const SlopeArg slope{alpha, value, channel_dim};
  const bool needs_graph = any_requires_grad(grad, saved, alpha);
  const bool has_tangent = isFwGradDefined(grad) || isFwGradDefined(saved) || isFwGradDefined(alpha);
  if (kind != int64_t(Saved::Input) && (needs_graph || has_tangent)) {
    return backward_from_rebuilt(grad, formulas::rebuild_input(grad, saved, mask, slope, saved_of(kind), stride), slope,
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
    node->grad = SavedVariable(grad, false);
    node->saved = SavedVariable(*saved, false);
    node->slope.save(slope);
    torch::autograd::set_history(variable_list{grad_x, grad_alpha}, node);
  }
  if (has_tangent) {
    const Tensor g = grad._fw_primal(0), x = saved->_fw_primal(0), g_t = grad._fw_grad(0), x_t = saved->_fw_grad(0);
    const OptionalTensor a = alpha ? OptionalTensor(alpha->_fw_primal(0)) : std::nullopt;
    const Tensor a_t = alpha ? alpha->_fw_grad(0) : Tensor();
    const SlopeArg primal{a, value, channel_dim};
    Tensor grad_x_t, grad_alpha_t;
    if (grad_x.defined() && g_t.defined()) add(grad_x_t, times_slope_where_negative(g_t, x, primal));
    if (grad_x.defined() && a_t.defined()) add(grad_x_t, formulas::slope_term(x, primal, g, a_t));
    if (grad_alpha.defined() && g_t.defined()) add(grad_alpha_t, formulas::sum_of_products(x, primal, g_t, x));
    if (grad_alpha.defined() && x_t.defined()) add(grad_alpha_t, formulas::sum_of_products(x, primal, g, x_t));
    if (grad_x_t.defined()) grad_x._set_fw_grad(grad_x_t, 0, false);
    if (grad_alpha_t.defined()) grad_alpha._set_fw_grad(grad_alpha_t, 0, false);
  }
  return result;
}

}  // namespace leaky_ext::autograd
