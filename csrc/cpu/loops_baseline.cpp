// The loops for every machine that the compiler's default target covers.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "chunk.h"
#include "half.h"

#define LEAKY_VECTOR_BYTES 16

namespace leaky_ext::cpu::baseline {
#include "loops.inc"
}  // namespace leaky_ext::cpu::baseline
