// The loops for AVX2. The whole file is compiled for this target. So it includes no header with functions that the
// linker could share with files that run on every machine.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,bmi2")
#endif

#include <immintrin.h>

#define LEAKY_INSTRUCTION_SET avx2
#define LEAKY_VECTOR_BYTES 32
#include "loops.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
