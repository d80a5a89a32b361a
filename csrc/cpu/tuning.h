// The thresholds of the CPU kernels, and the measurements that chose them.
#pragma once

#include <cstdint>

namespace leaky_ext::cpu {

// Elements that one staging buffer holds: slopes, products and gathered operands of a chunk stay in the L1 cache.
constexpr int64_t kChunk = 2048;

// Fewest elements worth a thread of their own.
constexpr int64_t kGrain = 32768;

// Elements of a task where d(alpha) is summed: fine enough that threads get equal shares, coarse enough that the
// partial sums cost nothing. Where nothing is summed, threads share chunks.
constexpr int64_t kSumPart = 8192;

// Partial sums of d(alpha) held at once, as doubles: 512 KiB.
constexpr int64_t kMaxPartials = 65536;

// A run of at least this many elements with one slope is worth a loop of its own; shorter ones share one.
constexpr int64_t kRun = 32;

// Outputs into mapped memory are written around the cache (stores.h) from these shares of the last-level cache on, by
// how many tensors the pass goes over. What is gained must not be lost by a next layer that reads the output at once.
// Time with ordinary stores / with non-temporal ones, Zen 4 with a last-level cache of 32 MiB, fp32, 2 threads (1
// thread is never worse from 16 MiB on); a read is torch.clamp_min:
//   MiB of a tensor            8      16     32     48     64
//   forward                    0.57   1.25   1.29   1.52   1.53
//   forward, read              0.61   1.01   1.07   1.22   1.33
//   forward + mask, read       0.59   0.83   1.15   1.18   1.20
//   backward from mask, read   0.69   0.95   1.11   1.15   1.27
//   backward from x            1.04   1.53   1.30   1.30   1.28
//   backward from x, read      0.86   1.15   1.11   1.23   1.32
// bfloat16 at 16 MiB: backward from x 1.22, read 0.92; at 32 MiB 1.16 and 1.08.
constexpr double kStreamTwo = 1, kStreamThree = 0.5;

// Bounds of what is taken for the last-level cache; the upper one also where the system tells nothing. A virtual
// machine may be told the size of a cache that it shares with others.
constexpr int64_t kLeastCache = int64_t(4) << 20, kMostCache = int64_t(32) << 20;

}  // namespace leaky_ext::cpu
