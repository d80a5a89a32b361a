// Chooses, once, the loops of the best instruction set that the machine has.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "chunk.h"

namespace leaky_ext::cpu {
namespace {

struct InstructionSet {
  const char* name;
  bool available;
  const Loops& (*loops)(DType);
};

const InstructionSet& chosen() {
  static const InstructionSet& set = []() -> const InstructionSet& {
    static const InstructionSet sets[] = {
#if defined(__x86_64__)
        {"avx512",
         __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"),
         avx512::loops},
        // Every processor with AVX2 has F16C and BMI2.
        {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::loops},
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
