// What the host does around a kernel: types and index widths chosen once a call, launches that check.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "../kernels.h"
#include "pack.cuh"
#include "tuning.h"

namespace leaky_ext::cuda {

// Calls body with a value of the element type.
template <typename Body>
void with_type(DType dtype, Body body) {
  switch (dtype) {
    case DType::Float64:
      return body(double());
    case DType::Float32:
      return body(float());
    case DType::Float16:
      return body(Half());
    case DType::BFloat16:
      return body(BFloat16());
  }
}

// Calls body with a value of the index type.
template <typename Body>
void with_index(int64_t numel, Body body) {
  if (numel < kIndex32Limit) {
    body(uint32_t());
  } else {
    body(uint64_t());
  }
}

// Whether an operand can be read and written 16 bytes at once. A null one does not hinder.
inline bool can_pack(const void* data, const StridedView& view = {}) {
  return view.dense() && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks for a kernel in which each takes a tile of packs at a time.
template <int width>
int64_t elementwise_blocks(int64_t numel, const Launch& launch) {
  return std::min<int64_t>(ceil_div(numel, int64_t(width) * kPacksInFlight<width> * kThreads),
                           int64_t(launch.multiprocessors) * kBlocksElementwise);
}

// Launches kernel(params) on the stream, without waiting for it.
template <typename Params>
void launch_kernel(const char* name, void (*kernel)(Params), int64_t blocks, Params params, const Launch& launch) {
  void* arguments[] = {&params};
  const cudaError_t error = cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), arguments, 0,
                                             static_cast<cudaStream_t>(launch.stream));
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not meet this error again
  throw std::runtime_error(std::string("leaky_ext: CUDA kernel ") + name + ": " + cudaGetErrorString(error));
}

}  // namespace leaky_ext::cuda
