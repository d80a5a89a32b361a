// The way from tensors to the kernels, for every operator: checks, allocation, launch.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "kernels.h"

namespace leaky_ext::ops {

// What a slope argument was: a tensor with its channel_dim, or a float.
struct SlopeArg {
  const at::Tensor* tensor = nullptr;
  int64_t channel_dim = 1;
  double value = 0;
};

struct ForwardOptions {
  Formula formula = Formula::LeakyReLU;
  bool mask = false, in_place = false, positive_zero = false;
};

struct Outputs {
  at::Tensor y, mask;
};

Outputs forward(const at::Tensor& x, const SlopeArg& slope, ForwardOptions options);

// What is not needed comes back undefined.
std::tuple<at::Tensor, at::Tensor> backward_input(const at::Tensor& grad, const at::Tensor& x, const SlopeArg& slope,
                                                  bool need_x, bool need_alpha);
at::Tensor backward_mask(const at::Tensor& grad, const at::Tensor& mask, const SlopeArg& slope, at::IntArrayRef stride);
std::tuple<at::Tensor, at::Tensor> backward_output(const at::Tensor& grad, const at::Tensor& y,
                                                   const std::optional<at::Tensor>& mask, const SlopeArg& slope,
                                                   bool need_x, bool need_alpha);

}  // namespace leaky_ext::ops
