// What the operators require of their arguments. Every error names the values that do not fit, and is raised before
// anything is written.
#pragma once

#include "geometry.h"
#include "operators.h"

namespace leaky_ext {

// TypeError where the kernels have no such dtype; `name` is the argument's.
DType dtype_of(const at::Tensor& tensor, const char* name);

// The rules for alpha: its sizes with 1 for each dimension of x that it lacks, or nothing where it has one element.
Dims slope_sizes(at::IntArrayRef x, const at::Tensor& alpha, int64_t channel_dim);

// RuntimeError if two elements of x may lie in the same memory, so that x cannot be changed in place.
void check_no_overlap(const at::Tensor& x);

void check_device(const at::Tensor& x, const at::Tensor& other, const char* name);

// The bytes of a mask of `numel` bits.
int64_t mask_bytes(int64_t numel);

// The dimension that slopes go with, counted from the front. Sizes: those of x, symbolic ones too.
template <typename Sizes>
int64_t wrap_channel_dim(int64_t channel_dim, const Sizes& x) {
  const int64_t ndim = int64_t(x.size());
  TORCH_CHECK_INDEX(channel_dim >= -ndim && channel_dim < ndim, "leaky_ext: channel_dim ", channel_dim,
                    " is out of range for x of shape ", x);
  return channel_dim < 0 ? channel_dim + ndim : channel_dim;
}

// That the tensors which `kind` takes are there, and no others.
void check_kind(const OptionalTensor& saved, const OptionalTensor& mask, Saved kind);

// That, and that they fit grad.
void check_saved(const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
                 at::OptionalIntArrayRef stride, Saved kind);

Formula formula_of(int64_t number);

// Kinds that are Saved::Input, and tell a compiler of which formula (operators.h).
constexpr int64_t kInputOfReLU = 4, kInputOfLeakyReLU = 5;
Saved saved_of(int64_t number);

// Checks x and the slope, and returns slope_sizes: none if there is no tensor.
Dims check_arguments(const at::Tensor& x, const SlopeArg& slope);

// Whether y tells x. Positive: all slopes are, so y's sign is x's. Zero: one slope is 0, so x is lost. CPU tensors
// only.
enum class SlopeSigns { Positive, Mixed, Zero };
SlopeSigns signs_of(const at::Tensor& alpha, at::ScalarType x_dtype);

}  // namespace leaky_ext
