// The operators: schema and C++ signature, for torch.ops.leaky_ext.* and for the calls below.
//
//   alpha, value   the slope: a tensor, or else a number
//   channel_dim    the dimension of x that a 1-D alpha with several elements applies to
//   formula        Formula of kernels.h: 0 leaky ReLU, 1 the same with +0.0 for -0.0 (save="output"), 2 ReLU
//   kind           Saved of kernels.h, what `saved` and `mask` are: 0 x, 1 y, 2 y and the mask, 3 the mask alone;
//                  4, 5: `saved` is x; they tell Inductor which formula produced y (4 ReLU, 5 leaky ReLU)
//   revision       of leaky_ext/operators/inductor.py; unused here. It is in the keys of PyTorch's graph caches
//   stride         y's strides, if only the mask was saved and y is not contiguous. The mask is in y's memory order
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>

#include "kernels.h"

namespace leaky_ext {

using OptionalTensor = std::optional<at::Tensor>;
using Pair = std::tuple<at::Tensor, at::Tensor>;
using Need = std::array<bool, 2>;  // grad_x, grad_alpha

// The slope arguments of the operators.
struct SlopeArg {
  const OptionalTensor& alpha;
  const at::Scalar& value;
  int64_t channel_dim;
};

namespace operators {

template <typename Self, typename Signature>
struct Operator;

template <typename Self, typename R, typename... Args>
struct Operator<Self, R(Args...)> {
  static std::string name() {
    const std::string schema = Self::kSchema;
    return schema.substr(0, schema.find('('));
  }

  static const c10::TypedOperatorHandle<R(Args...)>& handle() {
    static const auto handle =
        c10::Dispatcher::singleton().findSchemaOrThrow(("leaky_ext::" + name()).c_str(), "").typed<R(Args...)>();
    return handle;
  }

  static R call(Args... args) { return handle().call(std::forward<Args>(args)...); }

  static R redispatch(c10::DispatchKeySet keys, Args... args) {
    return handle().redispatch(keys, std::forward<Args>(args)...);
  }
};

using at::Scalar;
using at::Tensor;

// The operators that compute y: with the mask or without it, in place or not.
template <typename Self, typename R, bool mask, bool in_place>
struct ForwardOperator : Operator<Self, R(const Tensor&, const OptionalTensor&, const Scalar&, int64_t, int64_t)> {
  static constexpr bool kMask = mask, kInPlace = in_place;
};

struct Forward : ForwardOperator<Forward, Tensor, false, false> {
  static constexpr const char* kSchema =
      "forward(Tensor x, Tensor? alpha, Scalar value, int channel_dim, int formula) -> Tensor";
};

struct ForwardMask : ForwardOperator<ForwardMask, Pair, true, false> {
  static constexpr const char* kSchema =
      "forward_mask(Tensor x, Tensor? alpha, Scalar value, int channel_dim, int formula) -> (Tensor y, Tensor mask)";
};

struct Forward_ : ForwardOperator<Forward_, Tensor, false, true> {
  static constexpr const char* kSchema =
      "forward_(Tensor(a!) x, Tensor? alpha, Scalar value, int channel_dim, int formula) -> Tensor(a!)";
};

struct ForwardMask_ : ForwardOperator<ForwardMask_, Tensor, true, true> {
  static constexpr const char* kSchema =
      "forward_mask_(Tensor(a!) x, Tensor? alpha, Scalar value, int channel_dim, int formula) -> Tensor mask";
};

// Calls forward. Dynamo's graphs contain this operator; tracers below Dynamo see only forward.
struct Compiled
    : Operator<Compiled, Tensor(const Tensor&, const OptionalTensor&, const Scalar&, int64_t, int64_t, int64_t)> {
  static constexpr const char* kSchema =
      "compiled(Tensor x, Tensor? alpha, Scalar value, int channel_dim, int formula, int revision) -> Tensor";
};

// Returns an undefined tensor for a gradient that is not needed.
struct Backward
    : Operator<Backward, Pair(const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                              const Scalar&, int64_t, int64_t, at::OptionalSymIntArrayRef, Need)> {
  static constexpr const char* kSchema =
      "backward(Tensor grad, Tensor? saved, Tensor? mask, Tensor? alpha, Scalar value, int channel_dim, "
      "int kind, SymInt[]? stride, bool[2] output_mask) -> (Tensor grad_x, Tensor grad_alpha)";
};

// Clamps the slope to its bounds (bounds.cpp).
struct ClampSlope : Operator<ClampSlope, Tensor(const Tensor&, double, double)> {
  static constexpr const char* kSchema = "clamp_slope(Tensor alpha, float low, float high) -> Tensor";
};

}  // namespace operators
}  // namespace leaky_ext
