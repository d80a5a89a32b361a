// Slopes are read, and their gradient is written, in alpha's own type, which a kernel learns when it runs.
#pragma once

#include "pack.cuh"

namespace leaky_ext::cuda {

template <typename V>
__device__ __forceinline__ V slope(const Alpha& alpha, int64_t channel) {
  if (alpha.data == nullptr) return V(alpha.value);
  switch (alpha.dtype) {
    case DType::Float64:
      return V(static_cast<const double*>(alpha.data)[channel]);
    case DType::Float32:
      return V(static_cast<const float*>(alpha.data)[channel]);
    case DType::Float16:
      return V(widen(static_cast<const Half*>(alpha.data)[channel]));
    default:
      return V(widen(static_cast<const BFloat16*>(alpha.data)[channel]));
  }
}

// Where the sums of d(alpha) go.
struct GradAlpha {
  void* data;
  DType dtype;

  __device__ __forceinline__ void store(int64_t channel, double sum) const {
    switch (dtype) {
      case DType::Float64:
        static_cast<double*>(data)[channel] = sum;
        break;
      case DType::Float32:
        static_cast<float*>(data)[channel] = float(sum);
        break;
      case DType::Float16:
        static_cast<Half*>(data)[channel] = narrow<Half>(sum);
        break;
      default:
        static_cast<BFloat16*>(data)[channel] = narrow<BFloat16>(sum);
    }
  }
};

}  // namespace leaky_ext::cuda
