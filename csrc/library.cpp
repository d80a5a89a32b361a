// The operators as torch knows them: schemas, and what is registered for each dispatch key.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "ops.h"

namespace leaky_ext::ops {
namespace {

using at::IntArrayRef;
using at::Tensor;

constexpr ForwardOptions kReLU{Formula::ReLU};
constexpr ForwardOptions kReLUMask{Formula::ReLU, true};
constexpr ForwardOptions kMask{Formula::LeakyReLU, true};

ForwardOptions in_place(ForwardOptions options, bool positive_zero = false) {
  options.in_place = true;
  options.positive_zero = positive_zero;
  return options;
}

std::tuple<Tensor, Tensor> pair(Outputs outputs) { return {std::move(outputs.y), std::move(outputs.mask)}; }

// One registration for every device that the kernels know.
void implement(torch::Library& m) {
  m.impl("learnable_leaky_relu", [](const Tensor& x, const Tensor& alpha, int64_t dim, bool positive_zero) {
    return forward(x, {&alpha, dim}, {Formula::LeakyReLU, false, false, positive_zero}).y;
  });
  m.impl("learnable_leaky_relu.Scalar",
         [](const Tensor& x, double alpha) { return forward(x, {nullptr, 1, alpha}, {}).y; });
  m.impl("learnable_leaky_relu_", [](const Tensor& x, const Tensor& alpha, int64_t dim, bool positive_zero) {
    forward(x, {&alpha, dim}, in_place({}, positive_zero));
  });
  m.impl("learnable_leaky_relu_.Scalar",
         [](const Tensor& x, double alpha) { forward(x, {nullptr, 1, alpha}, in_place({})); });
  m.impl("learnable_leaky_relu_mask",
         [](const Tensor& x, const Tensor& alpha, int64_t dim) { return pair(forward(x, {&alpha, dim}, kMask)); });
  m.impl("learnable_leaky_relu_mask.Scalar",
         [](const Tensor& x, double alpha) { return pair(forward(x, {nullptr, 1, alpha}, kMask)); });
  m.impl("learnable_leaky_relu_mask_", [](const Tensor& x, const Tensor& alpha, int64_t dim) {
    return forward(x, {&alpha, dim}, in_place(kMask)).mask;
  });
  m.impl("learnable_leaky_relu_mask_.Scalar",
         [](const Tensor& x, double alpha) { return forward(x, {nullptr, 1, alpha}, in_place(kMask)).mask; });
  m.impl("straight_through_relu", [](const Tensor& x) { return forward(x, {}, kReLU).y; });
  m.impl("straight_through_relu_", [](const Tensor& x) { forward(x, {}, in_place(kReLU)); });
  m.impl("straight_through_relu_mask", [](const Tensor& x) { return pair(forward(x, {}, kReLUMask)); });
  m.impl("straight_through_relu_mask_", [](const Tensor& x) { return forward(x, {}, in_place(kReLUMask)).mask; });

  using OutputMask = std::array<bool, 2>;
  m.impl("backward", [](const Tensor& grad, const Tensor& x, const Tensor& alpha, int64_t dim, OutputMask need) {
    return backward_input(grad, x, {&alpha, dim}, need[0], need[1]);
  });
  m.impl("backward.Scalar", [](const Tensor& grad, const Tensor& x, double alpha) {
    return std::get<0>(backward_input(grad, x, {nullptr, 1, alpha}, true, false));
  });
  m.impl("backward_mask", [](const Tensor& grad, const Tensor& mask, const Tensor& alpha, int64_t dim,
                             IntArrayRef stride) { return backward_mask(grad, mask, {&alpha, dim}, stride); });
  m.impl("backward_mask.Scalar", [](const Tensor& grad, const Tensor& mask, double alpha, IntArrayRef stride) {
    return backward_mask(grad, mask, {nullptr, 1, alpha}, stride);
  });
  m.impl("backward_output",
         [](const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask, const Tensor& alpha, int64_t dim,
            OutputMask need) { return backward_output(grad, y, mask, {&alpha, dim}, need[0], need[1]); });
}

constexpr const char* kSchemas[] = {
    "learnable_leaky_relu(Tensor x, Tensor alpha, int channel_dim=1, *, bool positive_zero=False) -> Tensor",
    "learnable_leaky_relu.Scalar(Tensor x, float alpha) -> Tensor",
    "learnable_leaky_relu_(Tensor(a!) x, Tensor alpha, int channel_dim=1, *, bool positive_zero=False) -> ()",
    "learnable_leaky_relu_.Scalar(Tensor(a!) x, float alpha) -> ()",
    "learnable_leaky_relu_mask(Tensor x, Tensor alpha, int channel_dim=1) -> (Tensor y, Tensor mask)",
    "learnable_leaky_relu_mask.Scalar(Tensor x, float alpha) -> (Tensor y, Tensor mask)",
    "learnable_leaky_relu_mask_(Tensor(a!) x, Tensor alpha, int channel_dim=1) -> Tensor",
    "learnable_leaky_relu_mask_.Scalar(Tensor(a!) x, float alpha) -> Tensor",
    "straight_through_relu(Tensor x) -> Tensor",
    "straight_through_relu_(Tensor(a!) x) -> ()",
    "straight_through_relu_mask(Tensor x) -> (Tensor y, Tensor mask)",
    "straight_through_relu_mask_(Tensor(a!) x) -> Tensor",
    "backward(Tensor grad, Tensor x, Tensor alpha, int channel_dim, bool[2] output_mask) "
    "-> (Tensor grad_x, Tensor grad_alpha)",
    "backward.Scalar(Tensor grad, Tensor x, float alpha) -> Tensor",
    "backward_mask(Tensor grad, Tensor mask, Tensor alpha, int channel_dim, SymInt[] stride) -> Tensor",
    "backward_mask.Scalar(Tensor grad, Tensor mask, float alpha, SymInt[] stride) -> Tensor",
    "backward_output(Tensor grad, Tensor y, Tensor? mask, Tensor alpha, int channel_dim, bool[2] output_mask) "
    "-> (Tensor grad_x, Tensor grad_alpha)",
};

// The raw operators have no derivatives of their own: a gradient that would be lost in silence is refused here.
void refuse_autograd(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  if (at::GradMode::is_enabled()) {
    for (const c10::IValue& argument : torch::jit::last(*stack, op.schema().arguments().size())) {
      TORCH_CHECK(!argument.isTensor() || !argument.toTensor().requires_grad(), op.schema().operator_name(),
                  " is not differentiable: call leaky_ext.learnable_leaky_relu or leaky_ext.straight_through_relu, "
                  "which are, or use torch.no_grad()");
    }
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
}

// In-place operators on a view with the negative bit. torch's own fallback takes it that an in-place operator returns
// its first argument; ours do not, and it would read beyond what they return.
void resolve_negative(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const Tensor x = torch::jit::peek(*stack, 0, count).toTensor();
  for (size_t i = 0; i < count; ++i) {
    c10::IValue& argument = torch::jit::peek(*stack, i, count);
    if (argument.isTensor()) argument = argument.toTensor().resolve_neg();
  }
  const Tensor plain = torch::jit::peek(*stack, 0, count).toTensor();
  op.callBoxed(stack);
  if (x.is_neg()) x.copy_(plain);
}

#if !defined(LEAKY_WITH_CUDA)
void refuse_cuda(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK(false, op.schema().operator_name(),
              ": leaky_ext was built without CUDA. Build it where nvcc is found, with a torch that has CUDA, "
              "or with FORCE_CUDA=1");
}
#endif

// Registers `make()` for every operator, or for those whose schema contains `what`.
template <typename Make>
void implement_all(torch::Library& m, Make make, const char* what = "") {
  for (const std::string schema : kSchemas) {
    if (schema.find(what) != schema.npos) m.impl(schema.substr(0, schema.find('(')).c_str(), make());
  }
}

}  // namespace

}  // namespace leaky_ext::ops

TORCH_LIBRARY(leaky_ext, m) {
  for (const char* schema : leaky_ext::ops::kSchemas) m.def(schema);
}

TORCH_LIBRARY_IMPL(leaky_ext, CPU, m) { leaky_ext::ops::implement(m); }

TORCH_LIBRARY_IMPL(leaky_ext, CUDA, m) {
#if defined(LEAKY_WITH_CUDA)
  leaky_ext::ops::implement(m);
#else
  leaky_ext::ops::implement_all(
      m, [] { return torch::CppFunction::makeFromBoxedFunction<&leaky_ext::ops::refuse_cuda>(); });
#endif
}

TORCH_LIBRARY_IMPL(leaky_ext, Autograd, m) {
  leaky_ext::ops::implement_all(
      m, [] { return torch::CppFunction::makeFromBoxedFunction<&leaky_ext::ops::refuse_autograd>(); });
}

TORCH_LIBRARY_IMPL(leaky_ext, Negative, m) {
  leaky_ext::ops::implement_all(
      m, [] { return torch::CppFunction::makeFromBoxedFunction<&leaky_ext::ops::resolve_negative>(); }, "(a!)");
}
