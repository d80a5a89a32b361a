// Runs a function over tasks, or over elements in parts, on the threads of a ParallelFor.
#pragma once

#include <algorithm>

#include "../kernels.h"
#include "tuning.h"

namespace leaky_ext::cpu {

// Calls f(begin, end) for ranges of at least `grain` tasks. One range needs no ParallelFor.
template <typename F>
void run_tasks(ParallelFor parallel_for, int64_t tasks, int64_t grain, const F& f) {
  if (tasks <= grain || !parallel_for) {
    f(int64_t(0), tasks);
    return;
  }
  parallel_for(tasks, grain, const_cast<F*>(&f),
               [](void* context, int64_t begin, int64_t end) { (*static_cast<const F*>(context))(begin, end); });
}

// Calls f(begin, end) for ranges of elements that begin at a multiple of kPart.
template <typename F>
void run_elements(ParallelFor parallel_for, int64_t n, const F& f) {
  static_assert(kGrain % kPart == 0 && kPart % kChunk == 0);
  run_tasks(parallel_for, (n + kPart - 1) / kPart, kGrain / kPart,
            [&](int64_t begin, int64_t end) { f(begin * kPart, std::min(end * kPart, n)); });
}

}  // namespace leaky_ext::cpu
