// From tensors to what the kernels know: the order in which elements are counted, a Shape, a StridedView for each
// operand.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>

#include "kernels.h"

namespace leaky_ext {

using Dims = c10::SmallVector<int64_t, 6>;

// The strides that torch.empty_like gives: these, if they are dense and do not overlap, else dense ones in their order.
inline Dims dense_strides(at::IntArrayRef sizes, at::IntArrayRef strides) {
  Dims order;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 0) return Dims(strides.begin(), strides.end());
    if (sizes[d] != 1) order.push_back(int64_t(d));
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return strides[a] < strides[b]; });
  int64_t expected = 1;
  for (const int64_t d : order) {
    if (strides[d] != expected) {
      const auto inferred = at::infer_dense_strides(sizes, strides);
      return Dims(inferred.begin(), inferred.end());
    }
    expected *= sizes[d];
  }
  return Dims(strides.begin(), strides.end());
}

// How the elements of an output are counted: its dimensions, outermost first as they lie in memory. Those of size 1 are
// left out, for they never move.
struct Order {
  at::IntArrayRef sizes;
  Dims strides;  // of the output
  Dims dims;

  Order(at::IntArrayRef sizes, at::IntArrayRef strides) : sizes(sizes), strides(dense_strides(sizes, strides)) {
    for (size_t d = 0; d < sizes.size(); ++d) {
      if (sizes[d] != 1) dims.push_back(int64_t(d));
    }
    std::stable_sort(dims.begin(), dims.end(),
                     [this](int64_t a, int64_t b) { return this->strides[a] > this->strides[b]; });
  }

  // Where a tensor of these sizes keeps its elements. False: too scattered for a StridedView; copy it first.
  bool view_of(at::IntArrayRef tensor_strides, StridedView* view) const {
    *view = StridedView();
    for (const int64_t d : dims) {
      const int64_t size = sizes[d], stride = tensor_strides[d];
      if (view->ndim && view->stride[view->ndim - 1] == stride * size) {
        view->size[view->ndim - 1] *= size;
        view->stride[view->ndim - 1] = stride;
        continue;
      }
      if (view->ndim == StridedView::kMaxDims) return false;
      view->size[view->ndim] = size;
      view->stride[view->ndim++] = stride;
    }
    if (view->ndim == 1 && view->stride[0] == 1) view->ndim = 0;
    return true;
  }
};

// How a slope tensor falls on the elements. `sizes` are alpha's, with 1 for each dimension of x that alpha lacks; they
// are not read where alpha has one element.
struct SlopeLayout {
  Shape shape;
  at::Tensor slopes;      // contiguous, in the order of the channels
  bool expanded = false;  // one slope for each element, laid out like the output
  bool permuted = false;  // the channels are counted in another order than the slopes'

  SlopeLayout(const at::Tensor& alpha, at::IntArrayRef sizes, const Order& order) : sizes_(sizes) {
    if (alpha.numel() == 1) {
      shape.inner = c10::multiply_integers(order.sizes);
      slopes = alpha;
      return;
    }
    int first = -1, last = -1;  // the dimensions along which the slope changes, as places in order.dims
    for (int i = 0; i < int(order.dims.size()); ++i) {
      if (sizes[order.dims[i]] == 1) continue;
      if (first < 0) first = i;
      last = i;
    }
    for (int i = 0; i < int(order.dims.size()); ++i) {
      const int64_t d = order.dims[i];
      if (i < first) {
        shape.outer *= order.sizes[d];
      } else if (i > last) {
        shape.inner *= order.sizes[d];
      } else {
        shape.channels *= order.sizes[d];
        expanded = expanded || sizes[d] == 1;
        permuted = permuted || (i > first && d < order.dims[i - 1]);
      }
    }
    if (expanded) {
      shape = {1, c10::multiply_integers(order.sizes), 1};
      slopes = at::empty_strided(order.sizes, order.strides, alpha.options());
      slopes.copy_(alpha.reshape(sizes).expand(order.sizes));
    } else if (permuted) {
      slopes = alpha.reshape(sizes).permute(all_dims(order)).contiguous();
    } else {
      slopes = alpha.contiguous();
    }
  }

  // Memory for the kernels to write d(alpha) to.
  at::Tensor new_grad(const at::Tensor& alpha, const Order& order, at::ScalarType opmath) const {
    if (expanded) return at::empty_strided(order.sizes, order.strides, alpha.options().dtype(opmath));
    if (permuted) return at::empty_like(slopes);
    return alpha.is_cpu() ? at::Tensor(at::detail::empty_cpu(alpha.sizes(), alpha.scalar_type()))
                          : at::empty(alpha.sizes(), alpha.options());
  }

  // d(alpha) as the kernels wrote it, in alpha's shape and dtype.
  at::Tensor restore(const at::Tensor& grad, const at::Tensor& alpha, const Order& order) const {
    if (expanded) return at::sum_to(grad.to(at::kDouble), sizes_).to(alpha.scalar_type()).reshape(alpha.sizes());
    if (!permuted) return grad;
    const Dims dims = all_dims(order);
    Dims inverse(dims.size());
    for (size_t i = 0; i < dims.size(); ++i) inverse[dims[i]] = int64_t(i);
    return grad.permute(inverse).contiguous().view(alpha.sizes());
  }

 private:
  // Every dimension, those that order leaves out (their size is 1) first.
  static Dims all_dims(const Order& order) {
    Dims dims;
    for (size_t d = 0; d < order.sizes.size(); ++d) {
      if (order.sizes[d] == 1) dims.push_back(int64_t(d));
    }
    dims.append(order.dims.begin(), order.dims.end());
    return dims;
  }

  at::IntArrayRef sizes_;
};

}  // namespace leaky_ext
