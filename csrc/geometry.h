// From tensors to what the kernels know: the order in which elements are counted, a Shape, a StridedView per operand.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "kernels.h"

namespace leaky_ext {

using Dims = c10::SmallVector<int64_t, 6>;

// The order in which the elements of an output are counted: its dimensions, outermost first as they lie in memory.
// Dimensions of size 1 are left out. `slopes` are alpha's sizes, none if there is one slope. The slope must change along
// neighbouring dimensions, so those between them move outwards:
//
//   x (N, C, H, W), channels_last; in memory     N H W C
//   alpha (N, C, 1, 1) changes along             N     C
//   counted                                      H W N C     H * W rows of N * C slopes
struct Order {
  Dims sizes;
  Dims strides;  // of the output: those that torch.empty_like gives for a tensor with the strides given here
  Dims dims;
  StridedView output;  // where the output keeps its elements: dense, unless dimensions were moved

  Order(at::IntArrayRef sizes, at::IntArrayRef strides, at::IntArrayRef slopes = {});

  // The same order of `size` indices of dimension `dim`. The output keeps its strides.
  Order part(int64_t dim, int64_t size) const;

  // Where a tensor of these sizes keeps its elements. False if that takes more than StridedView::kMaxDims dimensions.
  bool view_of(at::IntArrayRef tensor_strides, StridedView* view) const;
};

// Which slope belongs to which element. `sizes` are alpha's, with 1 for each dimension of x that alpha lacks; unused if
// alpha has one element.
struct SlopeLayout {
  Shape shape;
  at::Tensor slopes;      // contiguous, in the order of the channels
  bool expanded = false;  // one slope per element, laid out like the output: where Order could not move dimensions
  bool permuted = false;  // the channels are counted in another order than the slopes'

  SlopeLayout(const at::Tensor& alpha, at::IntArrayRef sizes, const Order& order);

  // Memory for the kernels to write d(alpha) to.
  at::Tensor new_grad(const at::Tensor& alpha, const Order& order, at::ScalarType opmath) const;

  // d(alpha) as the kernels wrote it, in alpha's shape and dtype.
  at::Tensor restore(const at::Tensor& grad, const at::Tensor& alpha, const Order& order) const;

 private:
  at::IntArrayRef sizes_;
};

// SlopeLayout copies a slope that lies in another order than the channels, and its gradient. A large one is taken apart
// along a dimension, so that the copies stay small: `step` indices at a time. Not taken apart: one step.
struct Pieces {
  int64_t dim = 0, size = 1, step = 1;

  Pieces() = default;
  Pieces(const at::Tensor& alpha, at::IntArrayRef sizes, const Order& order);

  bool many() const { return step < size; }
  int64_t length(int64_t begin) const { return std::min(step, size - begin); }
  at::Tensor of(const at::Tensor& tensor, int64_t begin) const {
    return many() ? tensor.narrow(dim, begin, length(begin)) : tensor;
  }
};

}  // namespace leaky_ext
