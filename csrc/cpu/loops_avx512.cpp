// The loops for AVX-512. As in loops_avx2.cpp, no header has functions that the linker could share.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")
#pragma GCC diagnostic ignored "-Wuninitialized"  // in GCC's own avx512fintrin.h (bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#define LEAKY_INSTRUCTION_SET avx512
#define LEAKY_VECTOR_BYTES 64
#include "loops.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
