#include "checks.h"

#include <ATen/Dispatch.h>

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
      TORCH_CHECK_TYPE(false, "leaky_ext: ", name, " must be float64, float32, float16 or bfloat16, got ",
                       tensor.scalar_type());
  }
}

Dims slope_sizes(IntArrayRef x, const Tensor& alpha, int64_t channel_dim) {
  if (alpha.numel() == 1) return {};
  const int64_t ndim = int64_t(x.size());
  if (alpha.dim() == 1 && ndim > 1) {
    TORCH_CHECK_INDEX(channel_dim >= -ndim && channel_dim < ndim, "leaky_ext: channel_dim ", channel_dim,
                      " is out of range for x of shape ", x);
    const int64_t channel = channel_dim < 0 ? channel_dim + ndim : channel_dim;
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

void check_slope(const Tensor& x, const Tensor& alpha) {
  dtype_of(alpha, "alpha");
  const bool scalar = alpha.numel() == 1 && alpha.is_cpu() && !alpha.requires_grad();
  if (!scalar) check_device(x, alpha, "alpha");
}

void check_like(const Tensor& x, const Tensor& grad, const char* name) {
  TORCH_CHECK_VALUE(grad.sizes() == x.sizes(), "leaky_ext: grad has shape ", grad.sizes(), ", but ", name,
                    " has shape ", x.sizes());
  TORCH_CHECK_TYPE(grad.scalar_type() == x.scalar_type(), "leaky_ext: grad is ", grad.scalar_type(), ", but ", name,
                   " is ", x.scalar_type());
  check_device(x, grad, "grad");
}

int64_t mask_bytes(int64_t numel) { return (numel + 7) / 8; }

void check_mask(const Tensor& x, const Tensor& mask) {
  TORCH_CHECK_TYPE(mask.scalar_type() == at::kByte, "leaky_ext: mask must be uint8, got ", mask.scalar_type());
  TORCH_CHECK_VALUE(mask.dim() == 1 && mask.is_contiguous() && mask.numel() == mask_bytes(x.numel()),
                    "leaky_ext: mask of ", mask.sizes(), " does not fit ", x.numel(), " elements: it must have ",
                    mask_bytes(x.numel()), " contiguous bytes");
  check_device(x, mask, "mask");
}

void check_alpha(const Tensor& x, const Tensor& alpha, int64_t channel_dim) {
  dtype_of(x, "x");
  check_slope(x, alpha);
  slope_sizes(x.sizes(), alpha, channel_dim);
}

bool alpha_is_positive(const Tensor& alpha) {
  const Tensor slopes = alpha.contiguous();
  bool result = true;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, slopes.scalar_type(), "alpha_is_positive", [&] {
    const auto* values = slopes.const_data_ptr<scalar_t>();
    result = std::all_of(values, values + slopes.numel(), [](scalar_t value) { return value > scalar_t(0); });
  });
  return result;
}

}  // namespace leaky_ext
