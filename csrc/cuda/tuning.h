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
constexpr int packs_in_flight(int width) { return width == 8 ? 2 : 4; }

// Tensors with fewer elements are indexed in 32 bits.
constexpr int64_t kIndex32Limit = LEAKY_CUDA_INDEX32_LIMIT;

// The most partial sums of d(alpha): doubles in the workspace, 1 MiB.
constexpr int64_t kPartials = LEAKY_CUDA_PARTIALS;

// The largest grids. Elementwise: waves of the blocks that are resident at once; more of them even out the end. A
// reduction has a partial sum for each block, so it takes fewer: blocks for each multiprocessor, which are whole waves
// where two, three, four or six of them are resident at once.
constexpr int kWavesElementwise = 8;
constexpr int kBlocksReduction = 12;

// Up to this many packs for each thread of one block, d(alpha) takes one launch of one block for each channel or
// column. A larger reduction needs a second launch to add up partial sums, and is split as far as that pays.
constexpr int kPacksOfOneBlock = 8;

// Tensors of up to this many elements get d(alpha) in one launch where that takes a less even split.
constexpr int64_t kOneLaunch = LEAKY_CUDA_ONE_LAUNCH;

// Rows (the elements of one channel that lie together) from this many bytes on are read row by row.
constexpr int kLongRow = 256;

}  // namespace leaky_ext::cuda
