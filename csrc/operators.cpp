// Registration: the schemas, and the operators' implementation for each dispatch key.
#include "operators.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include "autograd.h"
#include "checks.h"
#include "composite.h"
#include "native.h"

namespace leaky_ext {
namespace {

using at::Scalar;
using at::Tensor;
using c10::DispatchKeySet;
using namespace operators;

template <typename F>
void for_each_forward(F f) {
  f(Forward()), f(ForwardMask()), f(Forward_()), f(ForwardMask_());
}

template <typename F>
void for_each_operator(F f) {
  for_each_forward(f), f(Backward());
}

// Returns what the schema of a forward operator says.
template <typename Op>
auto outputs(Op, Pair y_and_mask) {
  if constexpr (Op::kMask && !Op::kInPlace) {
    return y_and_mask;
  } else {
    return std::get<Op::kMask>(std::move(y_and_mask));
  }
}

// Registers compute(op, keys, x, slope, formula) for a forward operator.
template <typename Op, typename Compute>
void implement(torch::Library& m, Op op, Compute compute) {
  m.impl(op.name().c_str(),
         [=](DispatchKeySet keys, const Tensor& x, const OptionalTensor& alpha, const Scalar& value, int64_t dim,
             int64_t formula) { return compute(op, keys, x, SlopeArg{alpha, value, dim}, formula); });
}

// On devices that have kernels.
void implement_native(torch::Library& m) {
  for_each_forward([&](auto op) {
    implement(m, op, [](auto op, DispatchKeySet, auto& x, const SlopeArg& slope, int64_t formula) {
      return outputs(op, native::forward(x, slope, formula, op.kMask, op.kInPlace));
    });
  });
  m.impl("backward", native::backward);
}

// On devices without kernels.
void implement_composite(torch::Library& m) {
  const auto forward = [](auto op, DispatchKeySet, auto& x, const SlopeArg& slope, int64_t formula) {
    check_arguments(x, slope);
    return outputs(op, {composite::forward(x, slope, formula_of(formula)),
                        op.kMask ? composite::pack(composite::is_negative(x)) : Tensor()});
  };
  implement(m, Forward(), forward);
  implement(m, ForwardMask(), forward);
  m.impl("backward", composite::backward);
}

// Computes in place by the operators out of place: on other devices, under functionalization, for negative-bit views.
void implement_in_place_by_copy(torch::Library& m) {
  implement(m, Forward_(), [](auto, DispatchKeySet, auto& x, const SlopeArg& slope, int64_t formula) -> Tensor {
    return x.copy_(Forward::call(x, slope.alpha, slope.value, slope.channel_dim, formula));
  });
  implement(m, ForwardMask_(), [](auto, DispatchKeySet, auto& x, const SlopeArg& slope, int64_t formula) {
    auto [y, mask] = ForwardMask::call(x, slope.alpha, slope.value, slope.channel_dim, formula);
    x.copy_(y);
    return mask;
  });
}

Tensor compiled(const Tensor& x, const OptionalTensor& alpha, const Scalar& value, int64_t dim, int64_t formula,
                int64_t /*revision*/) {
  return Forward::call(x, alpha, value, dim, formula);
}

void refuse_nested(const c10::OperatorHandle& op, DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.schema().operator_name(),
                              ": operators take no nested tensors; leaky_ext's Python functions take those with "
                              "layout=torch.jagged");
}

#if !defined(LEAKY_WITH_CUDA)
void refuse_cuda(const c10::OperatorHandle& op, DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK(
      false, op.schema().operator_name(),
      ": leaky_ext was built without CUDA; leaky_ext.show_config() says why. To build its CUDA kernels, run "
      "FORCE_CUDA=1 pip install --force-reinstall --no-deps --no-cache-dir SOURCE, where SOURCE is the folder or "
      "URL of leaky_ext");
}
#endif

// Registers a function that raises, for every operator.
template <auto kRefuse>
void refuse(torch::Library& m) {
  for_each_operator([&](auto op) { m.impl(op.name().c_str(), torch::CppFunction::makeFromBoxedFunction<kRefuse>()); });
}

}  // namespace

TORCH_LIBRARY(leaky_ext, m) {
  for_each_operator([&](auto op) { m.def(op.kSchema, {at::Tag::pt2_compliant_tag}); });
  m.def(Compiled::kSchema, {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(leaky_ext, CPU, m) { implement_native(m); }

TORCH_LIBRARY_IMPL(leaky_ext, CUDA, m) {
#if defined(LEAKY_WITH_CUDA)
  implement_native(m);
#else
  refuse<refuse_cuda>(m);
#endif
}

TORCH_LIBRARY_IMPL(leaky_ext, CompositeExplicitAutograd, m) {
  implement_composite(m);
  implement_in_place_by_copy(m);
}

TORCH_LIBRARY_IMPL(leaky_ext, CompositeImplicitAutograd, m) { m.impl("compiled", compiled); }

TORCH_LIBRARY_IMPL(leaky_ext, FuncTorchBatched, m) { m.impl("compiled", compiled); }

TORCH_LIBRARY_IMPL(leaky_ext, Functionalize, m) { implement_in_place_by_copy(m); }

TORCH_LIBRARY_IMPL(leaky_ext, Negative, m) { implement_in_place_by_copy(m); }

TORCH_LIBRARY_IMPL(leaky_ext, Autograd, m) {
  for_each_forward([&](auto op) {
    implement(m, op, [](auto op, DispatchKeySet keys, auto& x, const SlopeArg& slope, int64_t formula) {
      return outputs(op, autograd::forward(keys, x, slope, formula, op.kMask, op.kInPlace));
    });
  });
  m.impl("backward", autograd::backward);
}

TORCH_LIBRARY_IMPL(leaky_ext, AutogradNestedTensor, m) { refuse<refuse_nested>(m); }
TORCH_LIBRARY_IMPL(leaky_ext, NestedTensorCPU, m) { refuse<refuse_nested>(m); }
TORCH_LIBRARY_IMPL(leaky_ext, NestedTensorCUDA, m) { refuse<refuse_nested>(m); }

// In-place operators increment the version of what they write to, as ATen's do.
TORCH_LIBRARY_IMPL(leaky_ext, ADInplaceOrView, m) {
  const auto counted = [](auto op, DispatchKeySet keys, auto& x, const SlopeArg& slope, int64_t formula) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto result = op.redispatch(keys & c10::after_ADInplaceOrView_keyset, x, slope.alpha, slope.value,
                                slope.channel_dim, formula);
    torch::autograd::impl::bump_version(x);
    return result;
  };
  implement(m, Forward_(), counted);
  implement(m, ForwardMask_(), counted);
}

}  // namespace leaky_ext
