#include "calls.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace leaky_ext::calls {
namespace {

using at::Tensor;

// Looks the operator up once and calls it below autograd.
template <typename Signature>
struct Op;

template <typename R, typename... Args>
struct Op<R(Args...)> {
  c10::TypedOperatorHandle<R(Args...)> handle;

  Op(const char* name, const char* overload)
      : handle(c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).template typed<R(Args...)>()) {}

  R operator()(Args... args) const {
    const at::AutoDispatchBelowAutograd below_autograd;
    return handle.call(std::forward<Args>(args)...);
  }
};

#define LEAKY_OP(variable, name, overload, ...) static const Op<__VA_ARGS__> variable("leaky_ext::" name, overload)

}  // namespace

Tensor learnable_leaky_relu(const Tensor& x, const Slope& alpha, int64_t channel_dim, bool positive_zero) {
  LEAKY_OP(by_tensor, "learnable_leaky_relu", "", Tensor(const Tensor&, const Tensor&, int64_t, bool));
  LEAKY_OP(by_scalar, "learnable_leaky_relu", "Scalar", Tensor(const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(x, *value);
  return by_tensor(x, std::get<Tensor>(alpha), channel_dim, positive_zero);
}

void learnable_leaky_relu_(const Tensor& x, const Slope& alpha, int64_t channel_dim, bool positive_zero) {
  LEAKY_OP(by_tensor, "learnable_leaky_relu_", "", void(const Tensor&, const Tensor&, int64_t, bool));
  LEAKY_OP(by_scalar, "learnable_leaky_relu_", "Scalar", void(const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(x, *value);
  by_tensor(x, std::get<Tensor>(alpha), channel_dim, positive_zero);
}

Pair learnable_leaky_relu_mask(const Tensor& x, const Slope& alpha, int64_t channel_dim) {
  LEAKY_OP(by_tensor, "learnable_leaky_relu_mask", "", Pair(const Tensor&, const Tensor&, int64_t));
  LEAKY_OP(by_scalar, "learnable_leaky_relu_mask", "Scalar", Pair(const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(x, *value);
  return by_tensor(x, std::get<Tensor>(alpha), channel_dim);
}

Tensor learnable_leaky_relu_mask_(const Tensor& x, const Slope& alpha, int64_t channel_dim) {
  LEAKY_OP(by_tensor, "learnable_leaky_relu_mask_", "", Tensor(const Tensor&, const Tensor&, int64_t));
  LEAKY_OP(by_scalar, "learnable_leaky_relu_mask_", "Scalar", Tensor(const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(x, *value);
  return by_tensor(x, std::get<Tensor>(alpha), channel_dim);
}

Tensor straight_through_relu(const Tensor& x) {
  LEAKY_OP(op, "straight_through_relu", "", Tensor(const Tensor&));
  return op(x);
}

void straight_through_relu_(const Tensor& x) {
  LEAKY_OP(op, "straight_through_relu_", "", void(const Tensor&));
  op(x);
}

Pair straight_through_relu_mask(const Tensor& x) {
  LEAKY_OP(op, "straight_through_relu_mask", "", Pair(const Tensor&));
  return op(x);
}

Tensor straight_through_relu_mask_(const Tensor& x) {
  LEAKY_OP(op, "straight_through_relu_mask_", "", Tensor(const Tensor&));
  return op(x);
}

Pair backward(const Tensor& grad, const Tensor& x, const Slope& alpha, int64_t channel_dim, bool need_x,
              bool need_alpha) {
  using Need = std::array<bool, 2>;
  LEAKY_OP(by_tensor, "backward", "", Pair(const Tensor&, const Tensor&, const Tensor&, int64_t, Need));
  LEAKY_OP(by_scalar, "backward", "Scalar", Tensor(const Tensor&, const Tensor&, double));
  if (const double* value = std::get_if<double>(&alpha)) return {by_scalar(grad, x, *value), Tensor()};
  return by_tensor(grad, x, std::get<Tensor>(alpha), channel_dim, Need{need_x, need_alpha});
}

Tensor backward_mask(const Tensor& grad, const Tensor& mask, const Slope& alpha, int64_t channel_dim,
                     const std::vector<int64_t>& stride) {
  const auto symbolic = c10::fromIntArrayRefSlow(stride);
  LEAKY_OP(by_tensor, "backward_mask", "",
           Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t, c10::SymIntArrayRef));
  LEAKY_OP(by_scalar, "backward_mask", "Scalar", Tensor(const Tensor&, const Tensor&, double, c10::SymIntArrayRef));
  if (const double* value = std::get_if<double>(&alpha)) return by_scalar(grad, mask, *value, symbolic);
  return by_tensor(grad, mask, std::get<Tensor>(alpha), channel_dim, symbolic);
}

Pair backward_output(const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask, const Tensor& alpha,
                     int64_t channel_dim, bool need_x, bool need_alpha) {
  using Need = std::array<bool, 2>;
  LEAKY_OP(op, "backward_output", "",
           Pair(const Tensor&, const Tensor&, const std::optional<Tensor>&, const Tensor&, int64_t, Need));
  return op(grad, y, mask, alpha, channel_dim, Need{need_x, need_alpha});
}

}  // namespace leaky_ext::calls
