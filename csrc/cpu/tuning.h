// The thresholds of the CPU kernels, and the measurements that they were chosen by.
#pragma once

#include <cstdint>

namespace leaky_ext::cpu {

// Measured in float32 with AVX-512 on a 2-core AMD EPYC (Zen 4; 32 KiB of L1 and 1 MiB of L2 per core, 32 MiB of L3).

// Elements that one staging buffer holds: slopes, products and gathered operands of a chunk stay in the L1 cache.
// Backward of 256K elements, 64 channels last, 1 thread: 110 us with 1024, 146 with 2048, 189 with 4096.
constexpr int64_t kChunk = 1024;

// If a row has at most this many elements, a table of slopes per element is computed once for all rows. 256K elements,
// 64 channels, runs of 49, 1 thread, without and with a table: forward 64 and 41 us, backward 135 and 96.
constexpr int64_t kTable = 16384;

// The smallest number of elements for which a thread pays, as GRAIN_SIZE in PyTorch. With 64K elements, a second thread
// gains nothing in forward (7.2 us with one, 7.6 with two) and little in backward (11.7, 10.1).
constexpr int64_t kGrain = 32768;

// Threads get parts of this size. In parts of 32768, two threads would share 98K elements unequally, 65 to 35.
constexpr int64_t kPart = 2048;

// The same if d(alpha) is summed. Each part has a partial sum. Backward of 98K elements, 2 threads: 14.9 us with 2048,
// 14.0 with 8192, 15.6 with 32768; of 1M elements 92.5, 83.8 and 82.7.
constexpr int64_t kSumPart = 8192;

// The largest number of partial sums of d(alpha). They are doubles: 512 KiB. Limits memory, not time.
constexpr int64_t kMaxPartials = 65536;

// A backward that sums d(alpha) has a loop for each run of at least this many elements with one slope. Shorter runs
// share a loop. 256K elements, 64 channels, 1 thread, own and shared loops: runs of 25: 155, 117 us; 64: 82, 89; 144:
// 62, 101.
constexpr int64_t kRun = 64;

}  // namespace leaky_ext::cpu
