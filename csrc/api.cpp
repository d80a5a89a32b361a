// The C++ API. Built by CMake alone.
#include "leaky_ext.h"

#include "operators.h"

namespace leaky_ext {
namespace {

at::Tensor activation(const at::Tensor& x, const OptionalTensor& alpha, double value, int64_t channel_dim,
                      Formula formula) {
  return operators::Forward::call(x, alpha, value, channel_dim, int64_t(formula));
}

}  // namespace

at::Tensor learnable_leaky_relu(const at::Tensor& x, const at::Tensor& alpha, int64_t channel_dim) {
  return activation(x, alpha, 0, channel_dim, Formula::LeakyReLU);
}

at::Tensor learnable_leaky_relu(const at::Tensor& x, double alpha) {
  return activation(x, std::nullopt, alpha, 1, Formula::LeakyReLU);
}

at::Tensor straight_through_relu(const at::Tensor& x, const at::Tensor& alpha, int64_t channel_dim) {
  return activation(x, alpha, 0, channel_dim, Formula::ReLU);
}

at::Tensor straight_through_relu(const at::Tensor& x, double alpha) {
  return activation(x, std::nullopt, alpha, 1, Formula::ReLU);
}

}  // namespace leaky_ext
