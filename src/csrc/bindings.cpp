// leaky_ext._C: the operators, without autograd, and the two functions that attach a gradient in C++.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "autograd.h"
#include "calls.h"
#include "checks.h"
#include "kernels.h"

#if !defined(LEAKY_CUDA_ARCHITECTURES)
#define LEAKY_CUDA_ARCHITECTURES ""
#endif

namespace leaky_ext {
namespace {

namespace py = pybind11;
using at::Tensor;
using OptionalPair = std::tuple<std::optional<Tensor>, std::optional<Tensor>>;

// What is undefined in C++ is None in Python.
OptionalPair optional(Pair pair) {
  const auto one = [](Tensor& t) { return t.defined() ? std::optional<Tensor>(std::move(t)) : std::nullopt; };
  return {one(std::get<0>(pair)), one(std::get<1>(pair))};
}

OptionalPair backward_or_none(const Tensor& grad, const Tensor& x, const Slope& alpha, int64_t channel_dim, bool need_x,
                              bool need_alpha) {
  return optional(calls::backward(grad, x, alpha, channel_dim, need_x, need_alpha));
}

OptionalPair backward_output_or_none(const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask,
                                     const Tensor& alpha, int64_t channel_dim, bool need_x, bool need_alpha) {
  return optional(calls::backward_output(grad, y, mask, alpha, channel_dim, need_x, need_alpha));
}

// Backward passes that are themselves differentiated or transformed are Python's: leaky_ext/transforms.py.
void set_differentiable(py::function from_input, py::function from_mask) {
  static py::function* input = new py::function();  // never freed: autograd may run while Python shuts down
  static py::function* mask = new py::function();
  *input = std::move(from_input);
  *mask = std::move(from_mask);
  differentiable() = {
      [](const Tensor& grad, const Tensor& x, const Slope& alpha, int64_t dim, bool need_x, bool need_alpha) -> Pair {
        const py::gil_scoped_acquire gil;
        auto [grad_x, grad_alpha] = (*input)(grad, x, alpha, dim, need_x, need_alpha).cast<OptionalPair>();
        return {grad_x.value_or(Tensor()), grad_alpha.value_or(Tensor())};
      },
      [](const Tensor& grad, const Tensor& kept, const Slope& alpha, int64_t dim, const std::vector<int64_t>& stride) {
        const py::gil_scoped_acquire gil;
        return (*mask)(grad, kept, alpha, dim, stride).cast<Tensor>();
      }};
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
    m.def(name, torch::wrap_pybind_function_no_gil(function), arguments...);
  };
  def("learnable_leaky_relu", calls::learnable_leaky_relu, arg("x"), arg("alpha"), dim, zero);
  def("learnable_leaky_relu_", calls::learnable_leaky_relu_, arg("x"), arg("alpha"), dim, zero);
  def("learnable_leaky_relu_mask", calls::learnable_leaky_relu_mask, arg("x"), arg("alpha"), dim);
  def("learnable_leaky_relu_mask_", calls::learnable_leaky_relu_mask_, arg("x"), arg("alpha"), dim);
  def("straight_through_relu", calls::straight_through_relu, arg("x"));
  def("straight_through_relu_", calls::straight_through_relu_, arg("x"));
  def("straight_through_relu_mask", calls::straight_through_relu_mask, arg("x"));
  def("straight_through_relu_mask_", calls::straight_through_relu_mask_, arg("x"));
  def("backward", backward_or_none, arg("grad"), arg("x"), arg("alpha"), dim, need_x, need_alpha);
  def("backward_mask", calls::backward_mask, arg("grad"), arg("mask"), arg("alpha"), arg("channel_dim"), arg("stride"));
  def("backward_output", backward_output_or_none, arg("grad"), arg("y"), arg("mask"), arg("alpha"), dim, need_x,
      need_alpha);
  def("keep_input", keep_input, arg("x"), arg("alpha"), arg("channel_dim"), arg("relu"));
  def("keep_mask", keep_mask, arg("x"), arg("alpha"), arg("channel_dim"), arg("relu"), arg("in_place") = false);
  m.def("set_differentiable", set_differentiable, arg("from_input"), arg("from_mask"));
  def("check_alpha", check_alpha, arg("x"), arg("alpha"), dim);
  def("alpha_is_positive", alpha_is_positive, arg("alpha"));
  m.def("build_info", build_info);
}
