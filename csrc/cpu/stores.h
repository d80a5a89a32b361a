// How a large output is written: with ordinary stores, or with non-temporal ones, which go around the cache.
//
//   memory that was       an ordinary store reads the line that it overwrites, a non-temporal one does not:
//   written to before     a third less traffic, but the next layer finds nothing in the cache
//   fresh memory          the system clears each page at its first touch, which leaves it in the cache
//
// So non-temporal stores are for outputs that the last-level cache would not keep anyway, in memory that is mapped.
#pragma once

#include <cstdint>

namespace leaky_ext::cpu {

// Whether `bytes` of output at `memory` should be written with non-temporal stores. `tensors`: how many of the output's
// size the pass goes over, itself included: 2, or 3 in a backward that reads x or y.
bool goes_around_cache(int tensors, const void* memory, int64_t bytes);

// Non-temporal stores are not ordered with later ones: a thread calls this before others may read what it wrote.
void finish_stores();

}  // namespace leaky_ext::cpu
