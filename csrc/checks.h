// The checks of the operators' arguments. Every error names the wrong values, and is raised before anything is written.
#pragma once

#include "layout.h"
#include "operators.h"

namespace leaky_ext {

// Returns the dtype. Raises TypeError if the kernels have no such dtype; `name` is the argument's.
DType dtype_of(const at::Tensor& tensor, const char* name);

// Returns alpha's sizes, with 1 for each dimension of x that it lacks; {} for one element. Raises if they do not fit x.
Dims slope_sizes(at::IntArrayRef x, const at::Tensor& alpha, int64_t channel_dim);

// Raises RuntimeError if two elements of x may lie in the same memory, so that x cannot be changed in place.
void check_no_overlap(const at::Tensor& x);

void check_device(const at::Tensor& x, const at::Tensor& other, const char* name);

// Returns the bytes of a mask of `numel` bits.
inline int64_t mask_bytes(int64_t numel) { return (numel + 7) / 8; }

// Returns the dimension of x that slopes belong to, counted from the front. The sizes of x may be symbolic.
template <typename Sizes>
int64_t wrap_channel_dim(int64_t channel_dim, const Sizes& x) {
  const int64_t ndim = int64_t(x.size());
  TORCH_CHECK_INDEX(channel_dim >= -ndim && channel_dim < ndim, "leaky_ext: channel_dim ", channel_dim,
                    " is out of range for x of shape ", x);
  return channel_dim < 0 ? channel_dim + ndim : channel_dim;
}

// Checks that exactly the tensors that `kind` requires are given.
void check_kind(const OptionalTensor& saved, const OptionalTensor& mask, Saved kind);

// Checks the kind, and that shapes, dtypes and devices fit grad.
void check_saved(const at::Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
                 at::OptionalIntArrayRef stride, Saved kind);

Formula formula_of(int64_t number);

// Kinds that mean Saved::Input, and tell Inductor which formula produced y (operators.h).
constexpr int64_t kInputOfReLU = 4, kInputOfLeakyReLU = 5;
Saved saved_of(int64_t number);

// Checks x and the slope. Returns slope_sizes, or an empty list if the slope is a number.
Dims check_arguments(const at::Tensor& x, const SlopeArg& slope);

// Returns true if every slope is positive, so that y has the sign of x. Raises ValueError if a slope is 0, because x
// cannot be computed from y then. CPU tensors only.
bool all_positive(const at::Tensor& alpha, at::ScalarType x_dtype);

}  // namespace leaky_ext
