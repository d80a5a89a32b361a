// What the operators ask of their arguments. Every error names the values that do not fit, and is raised before
// anything is written.
#pragma once

#include <ATen/core/Tensor.h>

#include "geometry.h"
#include "kernels.h"

namespace leaky_ext {

// TypeError where the kernels have no such dtype; `name` is the argument's.
DType dtype_of(const at::Tensor& tensor, const char* name);

// The rules for alpha: its sizes with 1 for each dimension of x that it lacks, or nothing where it has one element.
Dims slope_sizes(at::IntArrayRef x, const at::Tensor& alpha, int64_t channel_dim);

void check_device(const at::Tensor& x, const at::Tensor& other, const char* name);
void check_slope(const at::Tensor& x, const at::Tensor& alpha);
void check_like(const at::Tensor& x, const at::Tensor& grad, const char* name);

// The bytes of a mask of `numel` bits.
int64_t mask_bytes(int64_t numel);
void check_mask(const at::Tensor& x, const at::Tensor& mask);

// All that an operator checks of these three.
void check_alpha(const at::Tensor& x, const at::Tensor& alpha, int64_t channel_dim);

// Whether every slope is greater than 0, so that the sign of an output tells the sign of its input. CPU tensors only.
bool alpha_is_positive(const at::Tensor& alpha);

}  // namespace leaky_ext
