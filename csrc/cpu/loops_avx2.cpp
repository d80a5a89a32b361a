// The loops for AVX2. The whole file is compiled for that target, so it includes nothing whose functions
// the linker could share with files that run on every machine.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,bmi2")
#endif

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "chunk.h"
#include "half.h"

#define LEAKY_VECTOR_BYTES 32

namespace leaky_ext::cpu::avx2 {
#include "loops.inc"
}  // namespace leaky_ext::cpu::avx2

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
