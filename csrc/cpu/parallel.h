// Runs a callable over tasks, in place where there is just one.
#pragma once

#include "../kernels.h"

namespace leaky_ext::cpu {

template <typename F>
void run_tasks(ParallelFor parallel_for, int64_t tasks, int64_t grain, const F& f) {
  if (tasks <= grain || !parallel_for) {
    f(int64_t(0), tasks);
    return;
  }
  parallel_for(tasks, grain, const_cast<F*>(&f),
               [](void* context, int64_t begin, int64_t end) { (*static_cast<const F*>(context))(begin, end); });
}

}  // namespace leaky_ext::cpu
