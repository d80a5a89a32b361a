// Host code around a kernel: the choice of types, index widths and operands, and launches with error checks.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "../kernels.h"
#include "pack.cuh"
#include "tuning.h"

#ifndef LEAKY_CUDA_ARCHITECTURES  // the build names them, as TORCH_CUDA_ARCH_LIST does
#define LEAKY_CUDA_ARCHITECTURES "architectures that the build did not name"
#endif

namespace leaky_ext::cuda {

// Returns the number of elements in 16 bytes.
inline int pack_width(DType dtype) {
  int width = 0;
  with_type(dtype, [&](auto value) { width = kPackWidth<decltype(value)>; });
  return width;
}

// How a kernel reads and writes its operands, by the operand types of pack.cuh.
enum class Access { Dense, StridedPacks, Strided };

// Returns the fastest access that all operands with data allow. StridedPacks is compiled for 32-bit indices only.
inline Access common_access(std::initializer_list<std::pair<const void*, const StridedView*>> operands, DType dtype,
                            int64_t numel) {
  Access access = Access::Dense;
  for (const auto& [data, view] : operands) {
    const bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0;
    if (aligned && view->dense()) continue;
    if (!aligned || !is_packed_view(*view, pack_width(dtype)) || numel >= kIndex32Limit) return Access::Strided;
    access = Access::StridedPacks;
  }
  return access;
}

template <typename T>
struct OfType {
  using Type = T;
};

// Calls body with OfType<the operand type>.
template <typename Body>
void with_operand(DType dtype, int64_t numel, Access access, Body body) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const bool index32 = numel < kIndex32Limit;
    switch (access) {
      case Access::Dense:
        return index32 ? body(OfType<Dense<T, uint32_t>>()) : body(OfType<Dense<T, uint64_t>>());
      case Access::StridedPacks:
        return body(OfType<StridedPacks<T, uint32_t>>());
      case Access::Strided:
        return index32 ? body(OfType<Strided<T, uint32_t>>()) : body(OfType<Strided<T, uint64_t>>());
    }
  });
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline std::string card_and_build() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return "this GPU has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
         ", leaky_ext was built for " + LEAKY_CUDA_ARCHITECTURES;
}

inline void check(cudaError_t error, const char* name) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears the error for the next call
  std::string message = std::string("leaky_ext: CUDA kernel ") + name + ": " + cudaGetErrorString(error);
  if (error == cudaErrorNoKernelImageForDevice) message += ": " + card_and_build();
  throw std::runtime_error(message);
}

// Launches kernel(params) on the stream, without waiting for it.
template <typename Params>
void launch_kernel(const char* name, void (*kernel)(Params), int64_t blocks, Params params, const Launch& launch) {
  if (blocks > std::numeric_limits<int32_t>::max()) {
    throw std::runtime_error(std::string("leaky_ext: CUDA kernel ") + name + ": " + std::to_string(blocks) +
                             " blocks are more than a grid holds");
  }
  void* arguments[] = {&params};
  check(cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), arguments, 0,
                         static_cast<cudaStream_t>(launch.stream)),
        name);
}

// Returns the largest grid of a kernel: whole waves of the blocks that are resident on the first GPU that runs it.
template <auto kKernel>
int64_t most_blocks(const char* name, const Launch& launch) {
  static const int resident = [&] {
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kKernel, kThreads, 0), name);
    return blocks;
  }();
  return int64_t(launch.multiprocessors) * resident * kWaves;
}

// Elements in a tile: those that the threads of a block have in flight at once.
template <typename Operand>
constexpr int64_t kTileElements = int64_t(kThreads) * Operand::kWidth * packs_in_flight(Operand::kWidth);

}  // namespace leaky_ext::cuda
