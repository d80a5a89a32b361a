// leaky_ext._C: thin functions that call the dispatcher, so that tensor subclasses and dispatch modes see the
// operators, at the cost of a pybind11 call. They skip the autograd key: gradients are attached in Python
// (leaky_ext/autograd.py).
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "kernels.h"
#include "ops.h"

#if !defined(LEAKY_CUDA_ARCHITECTURES)
#define LEAKY_CUDA_ARCHITECTURES ""
#endif

namespace leaky_ext {
namespace {

namespace py = pybind11;
using at::IntArrayRef;
using at::Tensor;
using Pair = std::tuple<Tensor, Tensor>;
using OptionalPair = std::tuple<std::optional<Tensor>, std::optional<Tensor>>;
using Slope = std::variant<Tensor, double>;

// Looks the operator up once and calls it below autograd, without the GIL.
template <typename Signature>
struct Op;

template <typename R, typename... Args>
struct Op<R(Args...)> {
  c10::TypedOperatorHandle<R(Args...)> handle;

  Op(const char* name, const char* overload)
      : handle(c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).template typed<R(Args...)>()) {}

  R operator()(Args... args) const {
    const at::AutoDispatchBelowAutograd below_autograd;
    const py::gil_scoped_release no_gil;
    return handle.call(std::forward<Args>(args)...);
  }
};

#define LEAKY_OP(variable, name, overload, ...) static const Op<__VA_ARGS__> variable("leaky_ext::" name, overload)

Tensor learnable_leaky_relu(const Tensor& x, const Slope& alpha, int64_t channel_dim, bool positive_zero) {
  LEAKY_OP(by_tensor, "learnable_leaky_relu", "", Tensor(const Tensor&, const Tensor&, int64_t, bool));
  LEAKY_OP(by_scalar, "learnable_leaky_relu", "Scalar", Tensor(const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(x, *value);
  return by_tensor(x, std::get<Tensor>(alpha), channel_dim, positive_zero);
}

void learnable_leaky_relu_(const Tensor& x, const Slope& alpha, int64_t channel_dim, bool positive_zero) {
  LEAKY_OP(by_tensor, "learnable_leaky_relu_", "", void(const Tensor&, const Tensor&, int64_t, bool));
  LEAKY_OP(by_scalar, "learnable_leaky_relu_", "Scalar", void(const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(x, *value);
  by_tensor(x, std::get<Tensor>(alpha), channel_dim, positive_zero);
}

Pair learnable_leaky_relu_mask(const Tensor& x, const Slope& alpha, int64_t channel_dim) {
  LEAKY_OP(by_tensor, "learnable_leaky_relu_mask", "", Pair(const Tensor&, const Tensor&, int64_t));
  LEAKY_OP(by_scalar, "learnable_leaky_relu_mask", "Scalar", Pair(const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(x, *value);
  return by_tensor(x, std::get<Tensor>(alpha), channel_dim);
}

Tensor learnable_leaky_relu_mask_(const Tensor& x, const Slope& alpha, int64_t channel_dim) {
  LEAKY_OP(by_tensor, "learnable_leaky_relu_mask_", "", Tensor(const Tensor&, const Tensor&, int64_t));
  LEAKY_OP(by_scalar, "learnable_leaky_relu_mask_", "Scalar", Tensor(const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(x, *value);
  return by_tensor(x, std::get<Tensor>(alpha), channel_dim);
}

Tensor straight_through_relu(const Tensor& x) {
  LEAKY_OP(op, "straight_through_relu", "", Tensor(const Tensor&));
  return op(x);
}

void straight_through_relu_(const Tensor& x) {
  LEAKY_OP(op, "straight_through_relu_", "", void(const Tensor&));
  op(x);
}

Pair straight_through_relu_mask(const Tensor& x) {
  LEAKY_OP(op, "straight_through_relu_mask", "", Pair(const Tensor&));
  return op(x);
}

Tensor straight_through_relu_mask_(const Tensor& x) {
  LEAKY_OP(op, "straight_through_relu_mask_", "", Tensor(const Tensor&));
  return op(x);
}

// What was not wanted comes back as None.
OptionalPair optional(Pair pair) {
  auto one = [](Tensor& t) { return t.defined() ? std::optional<Tensor>(std::move(t)) : std::nullopt; };
  return {one(std::get<0>(pair)), one(std::get<1>(pair))};
}

OptionalPair backward(const Tensor& grad, const Tensor& x, const Slope& alpha, int64_t channel_dim, bool need_x,
                      bool need_alpha) {
  using Need = std::array<bool, 2>;
  LEAKY_OP(by_tensor, "backward", "", Pair(const Tensor&, const Tensor&, const Tensor&, int64_t, Need));
  LEAKY_OP(by_scalar, "backward", "Scalar", Tensor(const Tensor&, const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return {by_scalar(grad, x, *value), std::nullopt};
  return optional(by_tensor(grad, x, std::get<Tensor>(alpha), channel_dim, Need{need_x, need_alpha}));
}

Tensor backward_mask(const Tensor& grad, const Tensor& mask, const Slope& alpha, int64_t channel_dim,
                     const std::vector<int64_t>& stride) {
  const auto symbolic = c10::fromIntArrayRefSlow(stride);
  LEAKY_OP(by_tensor, "backward_mask", "",
           Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t, c10::SymIntArrayRef));
  LEAKY_OP(by_scalar, "backward_mask", "Scalar", Tensor(const Tensor&, const Tensor&, double, c10::SymIntArrayRef));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(grad, mask, *value, symbolic);
  return by_tensor(grad, mask, std::get<Tensor>(alpha), channel_dim, symbolic);
}

OptionalPair backward_output(const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask,
                             const Tensor& alpha, int64_t channel_dim, bool need_x, bool need_alpha) {
  using Need = std::array<bool, 2>;
  LEAKY_OP(op, "backward_output", "",
           Pair(const Tensor&, const Tensor&, const std::optional<Tensor>&, const Tensor&, int64_t, Need));
  return optional(op(grad, y, mask, alpha, channel_dim, Need{need_x, need_alpha}));
}

py::dict build_info() {
  py::dict info;
  info["torch"] = LEAKY_TORCH;
#if defined(LEAKY_WITH_CUDA)
  info["cuda"] = true;
#else
  info["cuda"] = false;
#endif
  info["cuda_architectures"] = LEAKY_CUDA_ARCHITECTURES;
  info["instruction_set"] = cpu::instruction_set();
#if defined(__VERSION__)
  info["compiler"] = __VERSION__;
#endif
  return info;
}

}  // namespace
}  // namespace leaky_ext

PYBIND11_MODULE(_C, m) {
  using namespace leaky_ext;
  using py::arg;
  const auto dim = arg("channel_dim") = 1;
  const auto zero = arg("positive_zero") = false;
  const auto need_x = arg("need_x") = true;
  const auto need_alpha = arg("need_alpha") = true;
  const auto def = [&m](const char* name, auto* function, const auto&... arguments) {
    m.def(name, torch::wrap_pybind_function(function), arguments...);
  };
  def("learnable_leaky_relu", learnable_leaky_relu, arg("x"), arg("alpha"), dim, zero);
  def("learnable_leaky_relu_", learnable_leaky_relu_, arg("x"), arg("alpha"), dim, zero);
  def("learnable_leaky_relu_mask", learnable_leaky_relu_mask, arg("x"), arg("alpha"), dim);
  def("learnable_leaky_relu_mask_", learnable_leaky_relu_mask_, arg("x"), arg("alpha"), dim);
  def("straight_through_relu", straight_through_relu, arg("x"));
  def("straight_through_relu_", straight_through_relu_, arg("x"));
  def("straight_through_relu_mask", straight_through_relu_mask, arg("x"));
  def("straight_through_relu_mask_", straight_through_relu_mask_, arg("x"));
  def("backward", backward, arg("grad"), arg("x"), arg("alpha"), dim, need_x, need_alpha);
  def("backward_mask", backward_mask, arg("grad"), arg("mask"), arg("alpha"), arg("channel_dim"), arg("stride"));
  def("backward_output", backward_output, arg("grad"), arg("y"), arg("mask"), arg("alpha"), dim, need_x, need_alpha);
  def("check_alpha", check_alpha, arg("x"), arg("alpha"), dim);
  def("alpha_is_positive", alpha_is_positive, arg("alpha"));
  def("build_info", build_info);
}
