// The entry points of the kernels: raw pointers in plain structs, no torch. CPU and CUDA share the structs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace leaky_ext {

enum class DType : uint8_t { Float64, Float32, Float16, BFloat16 };

// The only shape information that kernels receive. Element i has slope number (i / inner) % channels. The output (y,
// grad_x) is dense. Its elements are counted in memory order, unless a view of the output gives another order.
struct Shape {
  int64_t outer = 1, channels = 1, inner = 1;
  int64_t numel() const { return outer * channels * inner; }
};

// Maps element i to its index in an operand's memory. If ndim == 0, element i is at index i. Otherwise i counts through
// `size` (outermost first, adjacent dimensions merged). `stride` is in elements, and may be 0 or negative.
struct StridedView {
  static constexpr int kMaxDims = 8;
  int ndim = 0;
  int64_t size[kMaxDims] = {};
  int64_t stride[kMaxDims] = {};
  bool dense() const { return ndim == 0; }
};

// The slopes: `channels` contiguous elements on the kernel's device, or one value for all if data is null.
struct Alpha {
  const void* data = nullptr;
  DType dtype = DType::Float64;
  double value = 0;
};

// The formulas of leaky_math.h, by name. LeakyReLUSigned: y's sign bit is set iff x is negative (alpha > 0).
enum class Formula : uint8_t { LeakyReLU, LeakyReLUSigned, ReLU };

struct ForwardArgs {
  Formula formula = Formula::LeakyReLU;
  DType dtype = DType::Float32;  // of x and y
  Shape shape;
  const void* x = nullptr;
  StridedView x_view;
  void* y = nullptr;  // may be x
  StridedView y_view;
  Alpha alpha;              // unused by ReLU
  uint8_t* mask = nullptr;  // if not null: bit i % 8 of byte i / 8 is negative(x[i]); (numel + 7) / 8 bytes
};

// What was saved for backward. Input: x. Output: y only; x is negative iff y's sign bit is set or y is NaN.
// OutputAndMask: y, and the mask of negative x. Mask: the mask only; grad_alpha cannot be computed then.
enum class Saved : uint8_t { Input, Output, OutputAndMask, Mask };

struct BackwardArgs {
  DType dtype = DType::Float32;  // of grad, saved and grad_x
  Shape shape;
  const void* grad = nullptr;
  StridedView grad_view;
  Saved kind = Saved::Input;
  const void* saved = nullptr;  // x or y
  StridedView saved_view;
  const uint8_t* mask = nullptr;
  Alpha alpha;
  void* grad_x = nullptr;  // null: not wanted
  // Maps element i to its index in grad_x and the mask: a permutation, whose innermost stride is 1 if it is not dense.
  StridedView output_view;
  void* grad_alpha = nullptr;  // `channels` elements; null: not wanted
  DType grad_alpha_dtype = DType::Float32;
};

namespace cpu {

// Splits [0, tasks) into ranges of at least `grain` and calls body in parallel.
using Body = void (*)(void* context, int64_t begin, int64_t end);
using ParallelFor = void (*)(int64_t tasks, int64_t grain, void* context, Body body);

void forward(const ForwardArgs& args, ParallelFor parallel_for);
void backward(const BackwardArgs& args, ParallelFor parallel_for);

// Returns "avx512", "avx2" or "baseline": the best that the machine supports, or what LEAKY_EXT_CPU names.
const char* instruction_set();

}  // namespace cpu

namespace cuda {

// `stream` is a cudaStream_t. Every call is asynchronous and can be captured in a graph.
struct Launch {
  void* stream = nullptr;
  int multiprocessors = 1;
  void* workspace = nullptr;  // workspace_bytes(), on the device; contents do not matter
};

// Returns the workspace size; at most 1 MiB. Set all pointers first: the plan depends on their alignment.
size_t workspace_bytes(const BackwardArgs& args, int multiprocessors);
void forward(const ForwardArgs& args, const Launch& launch);
void backward(const BackwardArgs& args, const Launch& launch);

}  // namespace cuda
}  // namespace leaky_ext
