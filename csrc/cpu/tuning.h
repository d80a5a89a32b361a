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

// Outputs below this many bytes are just written.
constexpr int64_t kLargeOutput = int64_t(2) << 20;

// Outputs of at least this many bytes, in memory that was touched before, are written around the cache.
constexpr int64_t kStreamBytes = int64_t(16) << 20;

// Shorter stretches that do not start on a cache line are stored the ordinary way.
constexpr int64_t kStreamRun = 256;

}  // namespace leaky_ext::cpu
