// The thresholds of the CPU kernels, and the measurements that chose them.
#pragma once

#include <cstdint>

namespace leaky_ext::cpu {

// Times below: fp32, 2-core AMD EPYC (Zen 4, 32 KiB of L1, 1 MiB of L2 for each core, 32 MiB of last-level cache),
// AVX-512.

// Elements that one staging buffer holds: slopes, products and gathered operands of a chunk stay in the L1 cache.
// Backward of 256K elements, 64 channels last, 1 thread: 110 us with 1024, 146 with 2048, 189 with 4096.
constexpr int64_t kChunk = 1024;

// A row of at most this many slopes, one for each element, is written out once for all rows. 256K elements, 64 channels,
// runs of 49, 1 thread, if each chunk writes its own and from a table: forward 64 and 41 us, backward 135 and 96.
constexpr int64_t kTable = 16384;

// Fewest elements worth a thread of their own; torch's own GRAIN_SIZE. At 64K elements a second thread gains nothing in
// a forward (7.2 us with one, 7.6 with two) and a little in a backward (11.7, 10.1).
constexpr int64_t kGrain = 32768;

// Threads share parts of this many elements: fine enough for equal shares. 98K elements cut by 32768 are shared 65
// to 35.
constexpr int64_t kPart = 2048;

// The same if d(alpha) is summed: each part leaves a partial sum. Backward of 98K elements, 2 threads: 14.9 us with
// 2048, 14.0 with 8192, 15.6 with 32768; of 1M elements 92.5, 83.8 and 82.7.
constexpr int64_t kSumPart = 8192;

// Partial sums of d(alpha) held at once, as doubles: 512 KiB, to bound memory, not for speed.
constexpr int64_t kMaxPartials = 65536;

// In a backward that sums d(alpha), a run of at least this many elements with one slope is worth a loop of its own;
// shorter ones share one. 256K elements, 64 channels, 1 thread, own loops and shared: runs of 25: 155 and 117 us, of 64:
// 82 and 89, of 144: 62 and 101.
constexpr int64_t kRun = 64;

}  // namespace leaky_ext::cpu
