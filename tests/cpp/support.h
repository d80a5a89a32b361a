// What tests of the CPU kernels share: threads, and a main that skips what the machine cannot run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels.h"
#include "trial.h"

namespace leaky_ext::test {

// A ParallelFor with as many threads as `threads` says.
inline int threads = 1;

inline void parallel_for(int64_t tasks, int64_t grain, void* context, cpu::Body body) {
  std::vector<std::thread> team;
  const int64_t share = std::max((tasks + threads - 1) / threads, grain);
  for (int64_t begin = share; begin < tasks; begin += share) {
    team.emplace_back(body, context, begin, std::min(begin + share, tasks));
  }
  body(context, 0, std::min(share, tasks));
  for (std::thread& thread : team) thread.join();
}

constexpr int kSkip = 77;  // as tests/cpp/CMakeLists.txt says

// main of a test; skips it where the machine lacks the instruction set that LEAKY_EXT_CPU names.
inline int run(const char* name, void (*body)()) {
  try {
    std::printf("%s, %s\n", name, cpu::instruction_set());
  } catch (const std::runtime_error& error) {
    std::printf("%s\n", error.what());
    return kSkip;
  }
  body();
  std::printf("%s\n", failures ? "FAILED" : "passed");
  return failures != 0;
}

}  // namespace leaky_ext::test
