// Selects, once, the loops of the best instruction set that the machine supports.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "chunk.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace leaky_ext::cpu {
namespace {

struct InstructionSet {
  const char* name;
  bool available;
  const Loops& (*loops)(DType);
};

#if defined(__x86_64__)
// Returns true if the machine supports all that loops_avx2.cpp is compiled for. A hypervisor may mask only F16C or BMI2.
// F16C is read from cpuid: older compilers do not know its name.
bool has_avx2() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

// Does the same for loops_avx512.cpp.
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const InstructionSet& chosen() {
  static const InstructionSet& set = []() -> const InstructionSet& {
    static const InstructionSet sets[] = {
#if defined(__x86_64__)
        {"avx512", has_avx512(), avx512::loops},
        {"avx2", has_avx2(), avx2::loops},
#endif
        {"baseline", true, baseline::loops},
    };
    const char* wanted = std::getenv("LEAKY_EXT_CPU");
    for (const InstructionSet& set : sets) {
      if (wanted && *wanted ? std::strcmp(wanted, set.name) == 0 : set.available) {
        if (!set.available) throw std::runtime_error(std::string("LEAKY_EXT_CPU: this machine has no ") + wanted);
        return set;
      }
    }
    throw std::runtime_error(std::string("LEAKY_EXT_CPU is '") + wanted + "', not baseline, avx2 or avx512");
  }();
  return set;
}

}  // namespace

const Loops& loops(DType dtype) { return chosen().loops(dtype); }

const char* instruction_set() { return chosen().name; }

}  // namespace leaky_ext::cpu
