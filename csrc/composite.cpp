#include "composite.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <limits>

#include "checks.h"

namespace leaky_ext::composite {

using at::Tensor;

Tensor is_negative(const Tensor& x) { return at::logical_not(at::ge(x, 0)); }

Tensor broadcast_slope(const Tensor& x, const SlopeArg& slope, at::ScalarType dtype) {
  if (!slope.alpha) return at::scalar_tensor(slope.value, at::TensorOptions().dtype(dtype));
  const Tensor alpha = slope.alpha->to(dtype);
  if (alpha.sym_numel() == 1) return alpha.reshape({});
  if (alpha.dim() != 1 || x.dim() == 1) return alpha;
  const int64_t channel = wrap_channel_dim(slope.channel_dim, x.sym_sizes());
  std::vector<c10::SymInt> sizes(size_t(x.dim() - channel), 1);
  sizes[0] = alpha.sym_size(0);
  return alpha.reshape_symint(sizes);
}

namespace {

// Returns a * b `where`, else 0. b is masked first, so that no derivative meets 0 * inf.
Tensor product(const Tensor& where, const Tensor& a, const Tensor& b) {
  return at::where(where, a * at::where(where, b, 0), 0);
}

Tensor leaky(const Tensor& where, const Tensor& slope, const Tensor& x) {
  return at::where(where, slope * at::where(where, x, 0), x);
}

}  // namespace

Tensor forward(const Tensor& x, const SlopeArg& slope, Formula formula) {
  if (formula == Formula::ReLU) return at::where(at::lt(x, 0), 0, x);
  const at::ScalarType dtype = at::toOpMathType(x.scalar_type());
  const Tensor y = leaky(is_negative(x), broadcast_slope(x, slope, dtype), x.to(dtype)).to(x.scalar_type());
  return formula == Formula::LeakyReLUSigned ? at::where(at::eq(x, 0), 0, y) : y;
}

Tensor slope_term(const Tensor& x, const SlopeArg& slope, const Tensor& factor, const Tensor& v) {
  const at::ScalarType dtype = at::toOpMathType(x.scalar_type());
  const OptionalTensor tangent = v;
  const Tensor broadcast = broadcast_slope(x, {tangent, slope.value, slope.channel_dim}, dtype);
  return product(is_negative(x), broadcast, factor.to(dtype)).to(x.scalar_type());
}

Tensor sum_of_products(const Tensor& x, const SlopeArg& slope, const Tensor& a, const Tensor& b) {
  const at::ScalarType dtype = at::toOpMathType(x.scalar_type());
  const Tensor products = product(is_negative(x), a.to(dtype), b.to(dtype));
  const Tensor like = broadcast_slope(x, slope, dtype);
  const Tensor& alpha = *slope.alpha;
  return at::sum_to(products, like.sym_sizes()).reshape_symint(alpha.sym_sizes()).to(alpha.scalar_type());
}

Tensor pack(const Tensor& negative) {
  const int64_t numel = negative.numel(), bytes = mask_bytes(numel);
  const Tensor flat = at::constant_pad_nd(negative.as_strided({numel}, {1}), {0, bytes * 8 - numel});
  const Tensor weights = at::bitwise_left_shift(at::ones({8}, flat.options().dtype(at::kByte)),
                                                at::arange(8, flat.options().dtype(at::kByte)));
  return (flat.view({bytes, 8}).to(at::kByte) * weights).sum(1, false, at::kByte);
}

Tensor unpack(const Tensor& mask, const Tensor& like, at::OptionalSymIntArrayRef stride) {
  const Tensor shifts = at::arange(8, mask.options());
  const Tensor bits = at::bitwise_and(at::bitwise_right_shift(mask.unsqueeze(-1), shifts), 1).flatten();
  const Tensor flat = bits.narrow_symint(0, 0, like.sym_numel()).to(at::kBool);
  if (!stride) return flat.view_symint(like.sym_sizes());
  // y is dense: its elements are counted in the order of its strides.
  const Tensor order = at::empty_strided_symint(like.sym_sizes(), *stride, flat.options());
  return flat.as_strided_symint(like.sym_sizes(), at::empty_like(order).sym_strides());
}

Tensor rebuild_input(const Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask, const SlopeArg& slope,
                     Saved kind, at::OptionalSymIntArrayRef stride) {
  check_kind(saved, mask, kind);
  if (kind == Saved::Input) return *saved;
  if (kind == Saved::Mask) {  // any x with the same signs has the same gradient
    return 1 - 2 * unpack(*mask, grad, stride).to(grad.scalar_type());
  }
  const Tensor& y = *saved;
  const at::ScalarType dtype = at::toOpMathType(y.scalar_type());
  const Tensor where = mask ? unpack(*mask, y, y.sym_strides()) : at::logical_or(at::signbit(y), at::isnan(y));
  // If alpha * x underflowed, x is still negative.
  const double least = dtype == at::kDouble ? std::numeric_limits<double>::min() : std::numeric_limits<float>::min();
  const Tensor x = (y.to(dtype) / broadcast_slope(y, slope, dtype)).clamp_max(-least);
  return at::where(where, x, y.to(dtype));
}

Pair backward(const Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask, const OptionalTensor& alpha,
              const at::Scalar& value, int64_t channel_dim, int64_t kind, at::OptionalSymIntArrayRef stride,
              Need need) {
  const SlopeArg slope{alpha, value, channel_dim};
  const Tensor& like = saved ? *saved : grad;
  if (!like.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    check_saved(grad, saved, mask, std::nullopt, saved_of(kind));
    check_arguments(like, slope);
  }
  const Tensor x = rebuild_input(grad, saved, mask, slope, saved_of(kind), stride);
  const Tensor wide = grad.to(at::toOpMathType(grad.scalar_type()));
  Tensor grad_x, grad_alpha;
  if (need[0]) {
    grad_x = leaky(is_negative(x), broadcast_slope(x, slope, wide.scalar_type()), wide).to(grad.scalar_type());
  }
  if (need[1] && alpha) grad_alpha = sum_of_products(x, slope, wide, x);
  return {grad_x, grad_alpha};
}

}  // namespace leaky_ext::composite
