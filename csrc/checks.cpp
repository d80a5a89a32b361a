#include "checks.h"

#include <ATen/Dispatch.h>
#include <ATen/core/Formatting.h>

#include <algorithm>

namespace leaky_ext {

using at::IntArrayRef;
using at::Tensor;

DType dtype_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DType::Float64;
    case at::kFloat:
      return DType::Float32;
    case at::kHalf:
      return DType::Float16;
    case at::kBFloat16:
      return DType::BFloat16;
    default:
      TORCH_CHECK_TYPE(false, "leaky_ext: ", name, " must be float64, float32, float16 or bfloat16, got torch.",
                       c10::getDtypeNames(tensor.scalar_type()).first);
  }
}

void check_no_overlap(const Tensor& x) {
  if (x.numel() == 0) return;
  Dims dims;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (x.size(d) > 1) dims.push_back(d);
  }
  std::sort(dims.begin(), dims.end(), [&](int64_t a, int64_t b) { return x.stride(a) < x.stride(b); });
  int64_t reach = 0;  // the furthest element along the dimensions so far
  for (const int64_t d : dims) {
    TORCH_CHECK(x.stride(d) > reach, "leaky_ext: elements of x, of shape ", x.sizes(), " and strides ", x.strides(),
                ", share memory, so x cannot be changed in place: use the out-of-place function");
    reach += (x.size(d) - 1) * x.stride(d);
  }
}

Dims slope_sizes(IntArrayRef x, const Tensor& alpha, int64_t channel_dim) {
  if (alpha.numel() == 1) return {};
  const int64_t ndim = int64_t(x.size());
  if (alpha.dim() == 1 && ndim > 1) {
    const int64_t channel = wrap_channel_dim(channel_dim, x);
    TORCH_CHECK_VALUE(alpha.numel() == x[channel], "leaky_ext: alpha of shape ", alpha.sizes(), " needs ",
                      alpha.numel(), " channels, but x of shape ", x, " has ", x[channel], " in dimension ",
                      channel_dim);
    Dims sizes(size_t(ndim), 1);
    sizes[channel] = alpha.numel();
    return sizes;
  }
  bool fits = alpha.dim() == ndim;
  for (int64_t d = 0; fits && d < ndim; ++d) fits = alpha.size(d) == 1 || alpha.size(d) == x[d];
  TORCH_CHECK_VALUE(fits, "leaky_ext: alpha of shape ", alpha.sizes(), " does not fit x of shape ", x,
                    ": it must have one element, one for each channel, or broadcast in as many dimensions as x");
  return Dims(alpha.sizes().begin(), alpha.sizes().end());
}

void check_device(const Tensor& x, const Tensor& other, const char* name) {
  TORCH_CHECK(other.device() == x.device(), "leaky_ext: ", name, " is on ", other.device(), ", but x is on ",
              x.device());
}

static void check_layout(const Tensor& tensor, const char* name) {
  const at::Layout layout = tensor.layout();
  TORCH_CHECK_NOT_IMPLEMENTED(layout == at::kStrided || layout == at::kJagged, "leaky_ext: ", name, " has layout ",
                              layout, ": pass ", name, ".to_dense()");
}

Formula formula_of(int64_t number) {
  TORCH_CHECK_VALUE(number >= 0 && number <= int64_t(Formula::ReLU), "leaky_ext: formula must be 0, 1 or 2, got ",
                    number);
  return Formula(number);
}

Saved saved_of(int64_t number) {
  TORCH_CHECK_VALUE(number >= 0 && number <= kInputOfLeakyReLU, "leaky_ext: kind must be 0 to 5, got ", number);
  return number <= int64_t(Saved::Mask) ? Saved(number) : Saved::Input;
}

void check_kind(const OptionalTensor& saved, const OptionalTensor& mask, Saved kind) {
  const bool has_saved = kind != Saved::Mask, has_mask = kind >= Saved::OutputAndMask;
  TORCH_CHECK_VALUE(saved.has_value() == has_saved && mask.has_value() == has_mask, "leaky_ext: kind ", int64_t(kind),
                    " takes ", has_saved ? "a" : "no", " saved tensor and ", has_mask ? "a" : "no", " mask");
}

void check_saved(const Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask,
                 at::OptionalIntArrayRef stride, Saved kind) {
  check_kind(saved, mask, kind);
  if (saved) {
    TORCH_CHECK_VALUE(grad.sizes() == saved->sizes(), "leaky_ext: grad has shape ", grad.sizes(),
                      ", but what was saved has shape ", saved->sizes());
    TORCH_CHECK_TYPE(grad.scalar_type() == saved->scalar_type(), "leaky_ext: grad is ", grad.scalar_type(),
                     ", but what was saved is ", saved->scalar_type());
    check_device(*saved, grad, "grad");
  }
  if (mask) {
    TORCH_CHECK_TYPE(mask->scalar_type() == at::kByte, "leaky_ext: mask must be uint8, got ", mask->scalar_type());
    TORCH_CHECK_VALUE(mask->dim() == 1 && mask->is_contiguous() && mask->numel() == mask_bytes(grad.numel()),
                      "leaky_ext: mask of ", mask->sizes(), " does not fit ", grad.numel(), " elements: it must have ",
                      mask_bytes(grad.numel()), " contiguous bytes");
    check_device(grad, *mask, "mask");
  }
  TORCH_CHECK_VALUE(!stride || int64_t(stride->size()) == grad.dim(), "leaky_ext: stride ",
                    stride ? *stride : IntArrayRef(), " does not fit grad of shape ", grad.sizes());
}

Dims check_arguments(const Tensor& x, const SlopeArg& slope) {
  check_layout(x, "x");
  dtype_of(x, "x");
  if (!slope.alpha) return {};
  check_layout(*slope.alpha, "alpha");
  dtype_of(*slope.alpha, "alpha");
  const bool scalar = slope.alpha->numel() == 1 && slope.alpha->is_cpu() && !slope.alpha->requires_grad();
  if (!scalar) check_device(x, *slope.alpha, "alpha");
  return slope_sizes(x.sizes(), *slope.alpha, slope.channel_dim);
}

bool all_positive(const Tensor& alpha, at::ScalarType x_dtype) {
  const Tensor slopes = alpha.contiguous();
  return AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, slopes.scalar_type(), "all_positive", [&] {
    const auto* values = slopes.const_data_ptr<scalar_t>();
    bool positive = true;
    for (int64_t i = 0; i < slopes.numel(); ++i) {
      const double value = x_dtype == at::kDouble ? double(values[i]) : double(float(values[i]));
      TORCH_CHECK_VALUE(value != 0, "leaky_ext: x cannot be rebuilt from the output where alpha is 0: use ",
                        "save='input'. Slope ", i, " of ", slopes.numel(), " is 0");
      positive = positive && value > 0;
    }
    return positive;
  });
}

}  // namespace leaky_ext
