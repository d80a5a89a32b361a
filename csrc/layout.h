// Converts tensors to kernel arguments: the order in which elements are counted, a Shape, a StridedView per operand.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/TensorUtils.h>

#include <algorithm>

#include "operators.h"

#if defined(LEAKY_WITH_CUDA)
#include <ATen/cuda/EmptyTensor.h>
#endif

namespace leaky_ext {

// Allocates a tensor without the dispatcher, which costs more than the allocation.
inline at::Tensor new_tensor(const at::TensorOptions& options, at::IntArrayRef sizes, at::IntArrayRef strides) {
#if defined(LEAKY_WITH_CUDA)
  if (options.device().is_cuda()) return at::Tensor(at::detail::empty_strided_cuda(sizes, strides, options));
#endif
  return at::Tensor(at::detail::empty_strided_cpu(sizes, strides, options));
}

inline at::Tensor new_tensor(const at::TensorOptions& options, at::IntArrayRef sizes) {
  return new_tensor(options, sizes, at::detail::defaultStrides(sizes));
}

using Dims = c10::SmallVector<int64_t, 6>;

// The order in which the elements of an output are counted: its dimensions, outermost first as they lie in memory.
// Dimensions of size 1 are left out. `slopes` are alpha's sizes, none if there is one slope. The slope must change
// along neighbouring dimensions, so those between them move outwards:
//
//   x (N, C, H, W), channels_last; in memory     N H W C
//   alpha (N, C, 1, 1) changes along             N     C
//   counted                                      H W N C     H * W rows of N * C slopes
struct Order {
  Dims sizes;
  Dims strides;  // of the output: as torch.empty_like chooses them for the strides passed
  Dims dims;
  StridedView output;  // the view of the output; dense if no dimension was moved

  Order(at::IntArrayRef sizes, at::IntArrayRef strides, at::IntArrayRef slopes = {});

  // Returns the same order for `size` indices of dimension `dim`. The output keeps its strides.
  Order part(int64_t dim, int64_t size) const;

  // Writes the view of a tensor with these sizes. Returns false if it needs more than StridedView::kMaxDims dimensions.
  bool view_of(at::IntArrayRef tensor_strides, StridedView* view) const;
};

// The slope as kernels receive it, and where they write its gradient. Owns the slopes that `alpha` points to.
class KernelSlope {
 public:
  Shape shape;
  Alpha alpha;

  // `sizes` are alpha's, with 1 for each dimension of x that alpha lacks. They are unused if alpha has one element.
  KernelSlope(const at::Tensor& x, const SlopeArg& slope, at::IntArrayRef sizes, const Order& order);

  // Allocates the memory that the kernels write d(alpha) to.
  at::Tensor new_grad(at::ScalarType opmath) const;

  // Returns the d(alpha) that the kernels wrote, in alpha's shape and dtype.
  at::Tensor restore(const at::Tensor& grad) const;

 private:
  const OptionalTensor& tensor_;
  at::IntArrayRef sizes_;
  const Order& order_;
  at::Tensor slopes_;      // contiguous, in the order of the channels
  bool expanded_ = false;  // one slope per element, laid out like the output, if Order cannot move dimensions
  bool permuted_ = false;  // the channels are not counted in the slopes' order
};

// Splits a large slope along `dim` into pieces of `step` indices. KernelSlope copies a slope that is not in the order
// of the channels, and its gradient; pieces keep the copies small. A small slope is one piece.
struct Pieces {
  int64_t dim = 0, size = 1, step = 1;

  Pieces(const OptionalTensor& slope, at::IntArrayRef sizes, const Order& order);

  bool many() const { return step < size; }
  int64_t length(int64_t begin) const { return std::min(step, size - begin); }
  at::Tensor of(const at::Tensor& tensor, int64_t begin) const {
    return many() ? tensor.narrow(dim, begin, length(begin)) : tensor;
  }
};

}  // namespace leaky_ext
