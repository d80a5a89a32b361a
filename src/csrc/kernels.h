// The entry points of the kernels: raw pointers in plain structs, no torch. CPU and CUDA take the same structs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace leaky_ext {

enum class DType : uint8_t { Float64, Float32, Float16, BFloat16 };

// All that a kernel knows of shapes. The output (y, grad_x) is dense, its elements are counted as they lie in memory,
// and element i has slope number (i / inner) % channels.
struct Shape {
  int64_t outer = 1, channels = 1, inner = 1;
  int64_t numel() const { return outer * channels * inner; }
};

// Where an operand keeps element i. ndim == 0: at i, like the output. Else i is an index over `size` (outermost
// first, adjacent dimensions merged) and the strides, in elements, tell the place; 0 and negative strides are fine.
struct Walk {
  static constexpr int kMaxDims = 8;
  int ndim = 0;
  int64_t size[kMaxDims] = {};
  int64_t stride[kMaxDims] = {};
  bool dense() const { return ndim == 0; }
};

// The slopes: `channels` contiguous elements on the kernel's device, or, where data is null, one value for all.
struct Alpha {
  const void* data = nullptr;
  DType dtype = DType::Float64;
  double value = 0;
};

enum class Formula : uint8_t { LeakyReLU, ReLU };

struct ForwardArgs {
  Formula formula = Formula::LeakyReLU;
  DType dtype = DType::Float32;  // of x and y
  Shape shape;
  const void* x = nullptr;
  Walk x_walk;
  void* y = nullptr;           // may be x
  Walk y_walk;                 // dense, except where y is x
  Alpha alpha;                 // not read by ReLU
  uint8_t* mask = nullptr;     // where wanted: bit i % 8 of byte i / 8 is negative(x[i]); (numel + 7) / 8 bytes
  bool positive_zero = false;  // leaky_relu_signed instead of leaky_relu
};

// What the backward knows of x. Output: y, and the sign bit of y (or a NaN) tells a negative x.
// OutputAndMask: y, and the mask tells. Mask: the mask alone; there is no grad_alpha then.
enum class Saved : uint8_t { Input, Output, OutputAndMask, Mask };

struct BackwardArgs {
  DType dtype = DType::Float32;  // of grad, saved and grad_x
  Shape shape;
  const void* grad = nullptr;
  Walk grad_walk;
  Saved kind = Saved::Input;
  const void* saved = nullptr;  // x or y
  Walk saved_walk;
  const uint8_t* mask = nullptr;
  Alpha alpha;
  void* grad_x = nullptr;      // dense; null: not wanted
  void* grad_alpha = nullptr;  // `channels` elements; null: not wanted
  DType grad_alpha_dtype = DType::Float32;
};

namespace cpu {

// Calls body(begin, end) for parts that cover [0, tasks), on as many threads as the caller has.
using Body = void (*)(void* context, int64_t begin, int64_t end);
using ParallelFor = void (*)(int64_t tasks, void* context, Body body);

void forward(const ForwardArgs& args, ParallelFor parallel_for);
void backward(const BackwardArgs& args, ParallelFor parallel_for);

// "avx512", "avx2" or "baseline": the best that the machine has, or what LEAKY_EXT_CPU names.
const char* instruction_set();

}  // namespace cpu

namespace cuda {

// `stream` is a cudaStream_t. Every call is asynchronous and can be captured in a graph.
struct Launch {
  void* stream = nullptr;
  int multiprocessors = 1;
  void* workspace = nullptr;  // workspace_bytes(), on the device; contents do not matter
};

size_t workspace_bytes(const BackwardArgs& args, int multiprocessors);  // at most 1 MiB
void forward(const ForwardArgs& args, const Launch& launch);
void backward(const BackwardArgs& args, const Launch& launch);

}  // namespace cuda
}  // namespace leaky_ext
