// The numbers that the kernels are built with. The host tests build them smaller, to reach every path with few
// elements.
#pragma once

#include <cstdint>

#ifndef LEAKY_CUDA_THREADS
#define LEAKY_CUDA_THREADS 256
#endif
#ifndef LEAKY_CUDA_INDEX32_LIMIT
#define LEAKY_CUDA_INDEX32_LIMIT (int64_t(1) << 31)
#endif
#ifndef LEAKY_CUDA_PARTIALS
#define LEAKY_CUDA_PARTIALS (1 << 17)
#endif
#ifndef LEAKY_CUDA_ONE_LAUNCH
#define LEAKY_CUDA_ONE_LAUNCH (1 << 16)
#endif

namespace leaky_ext::cuda {

constexpr int kThreads = LEAKY_CUDA_THREADS;  // of every block; a power of two

// Packs of `width` elements that a thread has in flight. Of 8 elements fewer: their float values fill the registers.
template <int width>
constexpr int kPacksInFlight = width == 8 ? 2 : 4;

// Tensors with fewer elements are indexed in 32 bits.
constexpr int64_t kIndex32Limit = LEAKY_CUDA_INDEX32_LIMIT;

// The most partial sums of d(alpha): doubles in the workspace, 1 MiB.
constexpr int64_t kPartials = LEAKY_CUDA_PARTIALS;

// Blocks for each multiprocessor. About 4 are resident at once; more of them even out the end. A reduction has a
// partial sum for each block, so it takes fewer.
constexpr int kBlocksElementwise = 32;
constexpr int kBlocksReduction = 8;

// A reduction is split over blocks until each thread is left with this many packs: below that, one launch that needs no
// second one to add up the partial sums is faster.
constexpr int kPacksPerThread = 8;

// Tensors of up to this many elements get d(alpha) in one launch where that takes a less even split.
constexpr int64_t kOneLaunch = LEAKY_CUDA_ONE_LAUNCH;

// Rows (the elements of one channel that lie together) from this many bytes on are read row by row.
constexpr int kLongRow = 256;

}  // namespace leaky_ext::cuda
