// Selects the loops of the widest instruction set that the machine supports, once per process.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "loops.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace leaky_ext::cpu {
namespace {

struct InstructionSet {
  const char* name;
  const Loops& (*loops)(DType);
  bool available = true;
};

#if defined(__x86_64__)
// Returns true if the machine supports every target of loops_avx2.cpp. A hypervisor may mask F16C or BMI2 alone. F16C
// is read from cpuid, because older compilers do not know its name.
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

InstructionSet choose() {
  const InstructionSet sets[] = {
#if defined(__x86_64__)
      {"avx512", avx512::loops, has_avx512()},
      {"avx2", avx2::loops, has_avx2()},
#endif
      {"baseline", baseline::loops},
  };
  const char* variable = std::getenv("LEAKY_EXT_CPU");
  const std::string wanted = variable ? variable : "";
  for (const InstructionSet& set : sets) {
    if (wanted.empty() ? set.available : wanted == set.name) {
      if (!set.available) throw std::runtime_error("LEAKY_EXT_CPU: this machine has no " + wanted);
      return set;
    }
  }
  throw std::runtime_error("LEAKY_EXT_CPU is '" + wanted + "', not baseline, avx2 or avx512");
}

const InstructionSet& chosen() {
  static const InstructionSet set = choose();
  return set;
}

}  // namespace

const Loops& loops(DType dtype) { return chosen().loops(dtype); }

const char* instruction_set() { return chosen().name; }

}  // namespace leaky_ext::cpu
