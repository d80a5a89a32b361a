// The loops for AVX-512. The whole file is compiled for that target, so it includes nothing whose functions
// the linker could share with files that run on every machine.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // in GCC's own avx512fintrin.h (bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "chunk.h"
#include "half.h"

#define LEAKY_VECTOR_BYTES 64

namespace leaky_ext::cpu::avx512 {
#include "loops.inc"
}  // namespace leaky_ext::cpu::avx512

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
