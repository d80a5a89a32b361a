#include "layout.h"

#include <ATen/ExpandUtils.h>
#include <ATen/ops/empty_strided.h>

#include <numeric>
#include <utility>

#include "checks.h"

namespace leaky_ext {
namespace {

// Returns all dimensions; those that `order` leaves out come first.
Dims all_dims(const Order& order) {
  Dims dims;
  for (size_t d = 0; d < order.sizes.size(); ++d) {
    if (order.sizes[d] == 1) dims.push_back(int64_t(d));
  }
  dims.append(order.dims.begin(), order.dims.end());
  return dims;
}

}  // namespace

Order::Order(at::IntArrayRef sizes, at::IntArrayRef strides, at::IntArrayRef slopes)
    : sizes(sizes.begin(), sizes.end()), strides(strides.begin(), strides.end()) {
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1) dims.push_back(int64_t(d));
  }
  const auto sort = [this] {  // stable, and allocates nothing
    const auto outer = [this](int64_t a, int64_t b) { return this->strides[a] > this->strides[b]; };
    for (auto d = dims.begin(); d != dims.end(); ++d)
      std::rotate(std::upper_bound(dims.begin(), d, *d, outer), d, d + 1);
  };
  sort();
  int64_t expected = 1;
  const auto is_dense = [&](int64_t d) { return std::exchange(expected, expected * sizes[d]) == strides[d]; };
  if (c10::multiply_integers(sizes) != 0 && !std::all_of(dims.rbegin(), dims.rend(), is_dense)) {
    const auto dense = at::infer_dense_strides(sizes, strides);  // in the same order
    this->strides.assign(dense.begin(), dense.end());
    sort();
  }
  if (slopes.empty()) return;
  const auto changes = [&](int64_t d) { return slopes[d] != 1; };
  const auto first = std::find_if(dims.begin(), dims.end(), changes);
  const auto last = std::find_if(dims.rbegin(), dims.rend(), changes).base();
  if (std::all_of(first, last, changes)) return;
  const Dims in_memory = dims;
  std::stable_partition(first, last, [&](int64_t d) { return !changes(d); });
  if (view_of(this->strides, &output)) return;
  dims = in_memory;
  output = StridedView();
}

Order Order::part(int64_t dim, int64_t size) const {
  Order order = *this;
  order.sizes[dim] = size;
  if (size == 1) order.dims.erase(std::find(order.dims.begin(), order.dims.end(), dim));
  const bool fits = order.view_of(strides, &order.output);
  TORCH_INTERNAL_ASSERT(fits);
  return order;
}

bool Order::view_of(at::IntArrayRef tensor_strides, StridedView* view) const {
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

KernelSlope::KernelSlope(const at::Tensor& x, const SlopeArg& slope, at::IntArrayRef sizes, const Order& order)
    : tensor_(slope.alpha), sizes_(sizes), order_(order) {
  shape.inner = x.numel();
  if (!tensor_) {
    alpha.value = slope.value.toDouble();
    return;
  }
  slopes_ = *tensor_;
  alpha.dtype = dtype_of(slopes_, "alpha");
  if (slopes_.is_cpu() && !x.is_cpu()) {  // a CPU scalar travels with the launch
    alpha.value = slopes_.item().toDouble();
    return;
  }
  if (slopes_.numel() != 1) {
    const auto changes = [&](int64_t d) { return sizes[d] != 1; };
    const auto first = std::find_if(order.dims.begin(), order.dims.end(), changes);
    const auto last = std::find_if(order.dims.rbegin(), order.dims.rend(), changes).base();
    const auto count = [&](auto begin, auto end) {
      return std::accumulate(begin, end, int64_t(1), [&](int64_t n, int64_t d) { return n * order.sizes[d]; });
    };
    shape = {count(order.dims.begin(), first), count(first, last), count(last, order.dims.end())};
    expanded_ = !std::all_of(first, last, changes);
    permuted_ = !std::is_sorted(first, last);
    if (expanded_) {
      shape = {1, x.numel(), 1};
      slopes_ = at::empty_strided(order.sizes, order.strides, slopes_.options());
      slopes_.copy_(tensor_->reshape(sizes).expand(order.sizes));
    } else if (permuted_) {
      slopes_ = slopes_.reshape(sizes).permute(all_dims(order)).contiguous();
    } else {
      slopes_ = slopes_.contiguous();
    }
  }
  alpha.data = slopes_.const_data_ptr();
}

at::Tensor KernelSlope::new_grad(at::ScalarType opmath) const {
  if (expanded_) return at::empty_strided(order_.sizes, order_.strides, tensor_->options().dtype(opmath));
  return new_tensor(tensor_->options(), permuted_ ? slopes_.sizes() : tensor_->sizes());
}

at::Tensor KernelSlope::restore(const at::Tensor& grad) const {
  if (expanded_) return at::sum_to(grad.to(at::kDouble), sizes_).to(tensor_->scalar_type()).reshape(tensor_->sizes());
  if (!permuted_) return grad;
  const at::Tensor result = new_tensor(tensor_->options(), tensor_->sizes());
  result.view(sizes_).permute(all_dims(order_)).copy_(grad);
  return result;
}

Pieces::Pieces(const OptionalTensor& slope, at::IntArrayRef sizes, const Order& order) {
  if (!slope) return;
  const at::Tensor& alpha = *slope;
  constexpr int64_t kLargestCopy = 256 * 1024;  // bytes
  const int64_t bytes = alpha.numel() * int64_t(alpha.element_size());
  if (bytes <= kLargestCopy || alpha.dim() != int64_t(order.sizes.size()) || alpha.dim() > StridedView::kMaxDims ||
      alpha.numel() >= c10::multiply_integers(order.sizes)) {
    return;
  }
  Dims changing;
  for (const int64_t d : order.dims) {
    if (sizes[d] != 1) changing.push_back(d);
  }
  if (alpha.is_contiguous() && std::is_sorted(changing.begin(), changing.end())) return;
  if (changing.size() > 1) changing.pop_back();  // the innermost stays whole
  dim = *std::max_element(changing.begin(), changing.end(), [&](int64_t a, int64_t b) { return sizes[a] < sizes[b]; });
  size = sizes[dim];
  const int64_t whole_bytes = 8 / std::gcd(order.strides[dim], int64_t(8));  // of a mask
  step = std::max(whole_bytes, kLargestCopy / (bytes / size) / whole_bytes * whole_bytes);
}

}  // namespace leaky_ext
