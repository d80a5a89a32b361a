// Tensors that hold little beside the large ones of a pass: d(alpha), and the mask.
#pragma once

#include <ATen/core/Tensor.h>

namespace leaky_ext {

// Contiguous, not initialized, on the device of `options`. On the CPU the memory comes from malloc: torch's allocator
// takes every block from posix_memalign, and glibc cuts an aligned block out of a larger free one, often out of the
// hole that the next large tensor would have fitted into. From then on the heap is trimmed and grown at every step, and
// its pages are faulted in anew (1 to 16 MiB per tensor, fp32, 2 threads: 65 of 256 steps had page faults, with malloc
// 4).
at::Tensor small_tensor(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace leaky_ext
