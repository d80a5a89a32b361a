// Registration: the schemas, and the operators' implementation for each dispatch key.
#include "operators.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include "autograd.h"
#include "checks.h"
#include "formulas.h"
#include "tensors.h"

namespace leaky_ext {
namespace {

using at::Scalar;
using at::Tensor;
using namespace operators;

// forward, forward_mask, forward_ and forward_mask_ are templates below: kMask adds the mask, kInPlace writes to x.
// Returns what the operator's schema says.
template <bool kMask, bool kInPlace>
auto outputs(Tensor y, Tensor mask) {
  if constexpr (kMask && !kInPlace) {
    return Pair(std::move(y), std::move(mask));
  } else {
    return kMask ? std::move(mask) : std::move(y);
  }
}

// At the Autograd key.
template <bool kMask, bool kInPlace>
auto forward_with_grad(c10::DispatchKeySet keys, const Tensor& x, const OptionalTensor& alpha, const Scalar& value,
                       int64_t dim, int64_t formula) {
  auto [y, mask] = autograd::forward(keys, x, {alpha, value, dim}, formula, kMask, kInPlace);
  return outputs<kMask, kInPlace>(std::move(y), std::move(mask));
}

template <typename F>
void for_each_operator(F f) {
  f(Forward(), &forward_with_grad<false, false>);
  f(ForwardMask(), &forward_with_grad<true, false>);
  f(Forward_(), &forward_with_grad<false, true>);
  f(ForwardMask_(), &forward_with_grad<true, true>);
  f(Backward(), &autograd::backward);
}

// On devices that have kernels.
template <bool kMask, bool kInPlace>
auto forward_by_kernels(const Tensor& x, const OptionalTensor& alpha, const Scalar& value, int64_t dim,
                        int64_t formula) {
  auto [y, mask] = tensors::forward(x, {alpha, value, dim}, formula, kMask, kInPlace);
  return outputs<kMask, kInPlace>(std::move(y), std::move(mask));
}

void implement_by_kernels(torch::Library& m) {
  m.impl("forward", forward_by_kernels<false, false>);
  m.impl("forward_", forward_by_kernels<false, true>);
  m.impl("forward_mask", forward_by_kernels<true, false>);
  m.impl("forward_mask_", forward_by_kernels<true, true>);
  m.impl("backward",
         [](const Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask, const OptionalTensor& alpha,
            const Scalar& value, int64_t dim, int64_t kind, at::OptionalIntArrayRef stride,
            Need need) { return tensors::backward(grad, saved, mask, {alpha, value, dim}, kind, stride, need); });
}

// Computes in place by the operators out of place: on other devices, under functionalization, for negative-bit views.
template <bool kMask>
Tensor forward_in_place_by_copy(const Tensor& x, const OptionalTensor& alpha, const Scalar& value, int64_t dim,
                                int64_t formula) {
  if constexpr (kMask) {
    auto [y, mask] = ForwardMask::call(x, alpha, value, dim, formula);
    x.copy_(y);
    return mask;
  } else {
    return x.copy_(Forward::call(x, alpha, value, dim, formula));
  }
}

void implement_in_place_by_copy(torch::Library& m) {
  m.impl("forward_", forward_in_place_by_copy<false>);
  m.impl("forward_mask_", forward_in_place_by_copy<true>);
}

// On devices without kernels.
template <bool kMask>
auto forward_by_formulas(const Tensor& x, const OptionalTensor& alpha, const Scalar& value, int64_t dim,
                         int64_t formula) {
  const SlopeArg slope{alpha, value, dim};
  check_arguments(x, slope);
  return outputs<kMask, false>(formulas::forward(x, slope, formula_of(formula)),
                               kMask ? formulas::pack(formulas::is_negative(x)) : Tensor());
}

void implement_by_formulas(torch::Library& m) {
  m.impl("forward", forward_by_formulas<false>);
  m.impl("forward_mask", forward_by_formulas<true>);
  m.impl("backward",
         [](const Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask, const OptionalTensor& alpha,
            const Scalar& value, int64_t dim, int64_t kind, at::OptionalSymIntArrayRef stride, Need need) -> Pair {
           return formulas::backward(grad, saved, mask, {alpha, value, dim}, saved_of(kind), stride, need);
         });
}

Tensor compiled(const Tensor& x, const OptionalTensor& alpha, const Scalar& value, int64_t dim, int64_t formula,
                int64_t /*revision*/) {
  return Forward::call(x, alpha, value, dim, formula);
}

void refuse_nested(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.schema().operator_name(),
                              ": operators take no nested tensors; leaky_ext's Python functions take those with "
                              "layout=torch.jagged");
}

#if !defined(LEAKY_WITH_CUDA)
void refuse_cuda(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK(false, op.schema().operator_name(),
              ": leaky_ext was built without CUDA; leaky_ext.show_config() says why. To build its CUDA kernels, run "
              "FORCE_CUDA=1 pip install --force-reinstall --no-deps --no-cache-dir and where leaky_ext came from "
              "(in a clone, a dot)");
}
#endif

}  // namespace
}  // namespace leaky_ext

TORCH_LIBRARY(leaky_ext, m) {
  leaky_ext::for_each_operator([&](auto op, auto) { m.def(op.kSchema, {at::Tag::pt2_compliant_tag}); });
  m.def(leaky_ext::operators::Compiled::kSchema, {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(leaky_ext, CPU, m) { leaky_ext::implement_by_kernels(m); }

TORCH_LIBRARY_IMPL(leaky_ext, CUDA, m) {
#if defined(LEAKY_WITH_CUDA)
  leaky_ext::implement_by_kernels(m);
#else
  leaky_ext::for_each_operator([&](auto op, auto) {
    m.impl(op.name().c_str(), torch::CppFunction::makeFromBoxedFunction<&leaky_ext::refuse_cuda>());
  });
#endif
}

TORCH_LIBRARY_IMPL(leaky_ext, CompositeExplicitAutograd, m) {
  leaky_ext::implement_by_formulas(m);
  leaky_ext::implement_in_place_by_copy(m);
}

TORCH_LIBRARY_IMPL(leaky_ext, CompositeImplicitAutograd, m) { m.impl("compiled", &leaky_ext::compiled); }

TORCH_LIBRARY_IMPL(leaky_ext, FuncTorchBatched, m) { m.impl("compiled", &leaky_ext::compiled); }

TORCH_LIBRARY_IMPL(leaky_ext, Functionalize, m) { leaky_ext::implement_in_place_by_copy(m); }

TORCH_LIBRARY_IMPL(leaky_ext, Negative, m) { leaky_ext::implement_in_place_by_copy(m); }

TORCH_LIBRARY_IMPL(leaky_ext, Autograd, m) {
  leaky_ext::for_each_operator([&](auto op, auto kernel) { m.impl(op.name().c_str(), kernel); });
}

#define LEAKY_REFUSE_NESTED(key)                                                                         \
  TORCH_LIBRARY_IMPL(leaky_ext, key, m) {                                                                \
    leaky_ext::for_each_operator([&](auto op, auto) {                                                    \
      m.impl(op.name().c_str(), torch::CppFunction::makeFromBoxedFunction<&leaky_ext::refuse_nested>()); \
    });                                                                                                  \
  }
LEAKY_REFUSE_NESTED(AutogradNestedTensor)
LEAKY_REFUSE_NESTED(NestedTensorCPU)
LEAKY_REFUSE_NESTED(NestedTensorCUDA)

// In-place operators increment the version of what they write to, as ATen's do.
TORCH_LIBRARY_IMPL(leaky_ext, ADInplaceOrView, m) {
  using namespace leaky_ext;
  const auto counted = [](auto op) {
    return [op](c10::DispatchKeySet keys, const at::Tensor& x, const OptionalTensor& alpha, const at::Scalar& value,
                int64_t dim, int64_t formula) {
      const at::AutoDispatchBelowADInplaceOrView guard;
      auto result = op.redispatch(keys & c10::after_ADInplaceOrView_keyset, x, alpha, value, dim, formula);
      torch::autograd::impl::bump_version(x);
      return result;
    };
  };
  m.impl("forward_", counted(operators::Forward_()));
  m.impl("forward_mask_", counted(operators::ForwardMask_()));
}
