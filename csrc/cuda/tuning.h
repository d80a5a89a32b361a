// The thresholds and sizes of the CUDA kernels. Host tests use smaller ones, to reach every path with few elements.
#pragma once

#include <cstdint>

#ifndef LEAKY_CUDA_THREADS  // the host tests define all four
#define LEAKY_CUDA_THREADS 256
#define LEAKY_CUDA_INDEX32_LIMIT (int64_t(1) << 31)
#define LEAKY_CUDA_PARTIALS (1 << 17)
#define LEAKY_CUDA_ONE_LAUNCH (1 << 16)
#endif

namespace leaky_ext::cuda {

constexpr int kThreads = LEAKY_CUDA_THREADS;  // of every block; a power of two

// Packs that a thread has in flight: fewer for packs of 8 elements, whose float values fill the registers.
constexpr int packs_in_flight(int width) { return width == 8 ? 2 : 4; }

// Tensors with fewer elements are indexed in 32 bits.
constexpr int64_t kIndex32Limit = LEAKY_CUDA_INDEX32_LIMIT;

// The most partial sums of d(alpha): doubles in the workspace, 1 MiB.
constexpr int64_t kPartials = LEAKY_CUDA_PARTIALS;

// The largest grids of kernels whose blocks process several tiles. All other kernels have one block per tile, which is
// fastest (H200, 64M elements: forward + mask 137 us; 8 waves of resident blocks 141, 2 waves 148).
//
// Blocks of a reduction per multiprocessor: whole waves if two, three, four, six or eight of them are resident at once.
// Each has a partial sum (64M elements in bf16: 103.0 us; 12 blocks 104.5, 6 blocks 107.7).
constexpr int kBlocksReduction = 24;
// Waves of resident blocks if elements are read one by one, or by columns, whose blocks read their slopes first
// (bf16 channels last, forward and backward from the mask: 8 waves 70.5 and 75.5 us, 16 waves 69.5 and 77.7, one block
// per tile 72.8 and 81.5).
constexpr int kWaves = 8;

// If one block has at most this many packs per thread, d(alpha) takes one launch with one block per channel or column.
// A larger reduction is split over more blocks, and a second launch adds their partial sums.
constexpr int kPacksOfOneBlock = 8;

// Up to this many elements, d(alpha) is computed in one launch, even if its split is less even.
constexpr int64_t kOneLaunch = LEAKY_CUDA_ONE_LAUNCH;

// Rows (contiguous elements of one channel) of at least this many bytes are read row by row.
constexpr int kLongRow = 256;

}  // namespace leaky_ext::cuda
