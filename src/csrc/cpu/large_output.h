// How a large output is written. The two cases want opposite things:
//   memory that was touched before   an ordinary store reads the line that it overwrites; non-temporal stores do not
//   fresh memory                     the system clears each page at its first touch, which leaves it in the cache, and
//                                    costs more than the kernel; on huge pages there are 512 times fewer touches
#pragma once

#include <cstdint>

namespace leaky_ext::cpu {

// Whether `bytes` of output at `memory` should be written with non-temporal stores. Advises huge pages for fresh
// memory.
bool prepare_output(void* memory, int64_t bytes);

}  // namespace leaky_ext::cpu
