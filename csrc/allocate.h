// New tensors, without the dispatcher, which costs more than the allocation.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/TensorUtils.h>

#if defined(LEAKY_WITH_CUDA)
#include <ATen/cuda/EmptyTensor.h>
#endif

namespace leaky_ext {

inline at::Tensor new_tensor(const at::TensorOptions& options, at::IntArrayRef sizes, at::IntArrayRef strides) {
#if defined(LEAKY_WITH_CUDA)
  if (options.device().is_cuda()) return at::Tensor(at::detail::empty_strided_cuda(sizes, strides, options));
#endif
  return at::Tensor(at::detail::empty_strided_cpu(sizes, strides, options));
}

inline at::Tensor new_tensor(const at::TensorOptions& options, at::IntArrayRef sizes) {
  return new_tensor(options, sizes, at::detail::defaultStrides(sizes));
}

}  // namespace leaky_ext
