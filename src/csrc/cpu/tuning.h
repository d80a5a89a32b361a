// The thresholds of the CPU kernels, and the measurements that chose them.
#pragma once

#include <cstdint>

namespace leaky_ext::cpu {

// Elements that one staging buffer holds: slopes, products and gathered operands of a chunk stay in the L1 cache.
constexpr int64_t kChunk = 2048;

// Fewest elements worth a thread of their own.
constexpr int64_t kTask = 32768;

// Partial sums of d(alpha) held at once, as doubles: 512 KiB.
constexpr int64_t kMaxPartials = 65536;

// A run of at least this many elements with one slope is worth a loop of its own; shorter ones share one.
constexpr int64_t kRun = 32;

// Outputs of at least this many bytes are written by what their memory is (large_output.h). On a 2-core AVX-512 server
// (2 MiB of L2 for each core), fp32, forward + backward with d(alpha):
//   touched memory, 1 thread    4 MiB: 963 us with ordinary stores, 790 with non-temporal ones. At 2 MiB they would win
//                               too (468, 358), but a next layer that reads y at once loses more (195, 224 with it).
//   fresh memory, 2 threads     64 MiB: 52 ms on ordinary pages, 29 ms on huge ones; 4 MiB: 3.0 and 2.8 ms.
constexpr int64_t kLargeOutput = int64_t(4) << 20;

}  // namespace leaky_ext::cpu
