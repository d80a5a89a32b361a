#include "geometry.h"

#include <ATen/ExpandUtils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>

#include <numeric>

#include "allocate.h"

namespace leaky_ext {
namespace {

// Returns these strides if they are dense and do not overlap, else dense strides in the same order.
Dims dense_strides(at::IntArrayRef sizes, at::IntArrayRef strides) {
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
    : sizes(sizes.begin(), sizes.end()), strides(dense_strides(sizes, strides)) {
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1) dims.push_back(int64_t(d));
  }
  const auto outer = [this](int64_t a, int64_t b) { return this->strides[a] > this->strides[b]; };
  for (auto d = dims.begin(); d != dims.end(); ++d) {  // a stable sort that allocates nothing
    std::rotate(std::upper_bound(dims.begin(), d, *d, outer), d, d + 1);
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

SlopeLayout::SlopeLayout(const at::Tensor& alpha, at::IntArrayRef sizes, const Order& order) : sizes_(sizes) {
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

at::Tensor SlopeLayout::new_grad(const at::Tensor& alpha, const Order& order, at::ScalarType opmath) const {
  if (expanded) return at::empty_strided(order.sizes, order.strides, alpha.options().dtype(opmath));
  if (permuted) return at::empty_like(slopes);
  return new_tensor(alpha.options(), alpha.sizes());
}

at::Tensor SlopeLayout::restore(const at::Tensor& grad, const at::Tensor& alpha, const Order& order) const {
  if (expanded) return at::sum_to(grad.to(at::kDouble), sizes_).to(alpha.scalar_type()).reshape(alpha.sizes());
  if (!permuted) return grad;
  const Dims dims = all_dims(order);
  Dims inverse(dims.size());
  for (size_t i = 0; i < dims.size(); ++i) inverse[dims[i]] = int64_t(i);
  return grad.permute(inverse).contiguous().view(alpha.sizes());
}

Pieces::Pieces(const at::Tensor& alpha, at::IntArrayRef sizes, const Order& order) {
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
