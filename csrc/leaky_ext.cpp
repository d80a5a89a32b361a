// The C++ API. Built by CMake alone.
#include "leaky_ext.h"

#include "operators.h"

namespace leaky_ext {

at::Tensor learnable_leaky_relu(const at::Tensor& x, const at::Tensor& alpha, int64_t channel_dim) {
  return operators::Forward::call(x, alpha, 0, channel_dim, int64_t(Formula::LeakyReLU));
}

at::Tensor learnable_leaky_relu(const at::Tensor& x, double alpha) {
  return operators::Forward::call(x, std::nullopt, alpha, 1, int64_t(Formula::LeakyReLU));
}

at::Tensor straight_through_relu(const at::Tensor& x, const at::Tensor& alpha, int64_t channel_dim) {
  return operators::Forward::call(x, alpha, 0, channel_dim, int64_t(Formula::ReLU));
}

at::Tensor straight_through_relu(const at::Tensor& x, double alpha) {
  return operators::Forward::call(x, std::nullopt, alpha, 1, int64_t(Formula::ReLU));
}

}  // namespace leaky_ext
