// Splits a backward pass that sums d(alpha) into tasks. The split depends only on sizes. Partial sums are over the same
// elements, and are added in the same order, so the bits do not depend on the number of threads.
//
//              channel 0   | channel 1   | channel 2      one row: channels * inner elements, as they lie in memory
//     row 0  [ slot | slot | slot | slot | slot | slot ]
//     row 1  [   task 0    |   task 1    |   task 2    ]
//            +-------------+-------------+-------------+
//     row 2  [   task 3    |   task 4    |   task 5    ]
//     row 3  [             |             |             ]
//
//     partial sums: 6 for each row of tasks, added down the tasks, then over the slots of a channel
//
// The words for ranges of elements, in all files of csrc/cpu:
//
//     chunk   at most kChunk elements: what fits the buffers in the L1 cache
//     run     neighbouring elements with one slope
//     row     one index of `outer`: a run for each channel
//     slot    a run, or a piece of a long one; its products have one sum in each row of tasks
//     task    some slots of some rows: what a thread works on at a time
#pragma once

#include <algorithm>

#include "../kernels.h"
#include "tuning.h"

namespace leaky_ext::cpu {

struct Partition {
  Shape shape;
  int64_t slot = 0;  // elements of a slot; the last of a channel may be shorter
  int64_t slots_per_channel = 0;
  int64_t slots = 0;  // in a row
  int64_t rows_per_task = 0, tasks_down = 0;
  int64_t slots_per_task = 0, tasks_across = 0;

  explicit Partition(const Shape& s) : shape(s) {
    const int64_t n = s.numel(), row = s.channels * s.inner;
    if (n == 0) return;
    const int64_t part = n <= kGrain ? kGrain : kSumPart;
    // A long channel is split, but into no more partial sums than kMaxPartials allows.
    const int64_t most = std::max<int64_t>(1, kMaxPartials / 2 / s.channels);
    slots_per_channel = std::clamp<int64_t>(s.inner / part, 1, most);
    slot = round_up(divide_up(s.inner, slots_per_channel), slots_per_channel > 1 ? kChunk : 1);
    slots_per_channel = divide_up(s.inner, slot);
    slots = s.channels * slots_per_channel;

    tasks_down = std::min({s.outer, std::max<int64_t>(1, kMaxPartials / slots), divide_up(n, part)});
    rows_per_task = divide_up(s.outer, tasks_down);
    tasks_down = divide_up(s.outer, rows_per_task);
    // Whole rows if they are short, otherwise the slots that make a task, at least kChunk elements.
    slots_per_task = row <= kChunk ? slots : divide_up(std::max(part / rows_per_task, kChunk), slot);
    slots_per_task = std::min(slots_per_task, slots);
    tasks_across = divide_up(slots, slots_per_task);
  }

  int64_t tasks() const { return tasks_down * tasks_across; }
  // Returns the smallest number of tasks for which a thread pays.
  int64_t grain() const { return std::max<int64_t>(1, tasks() * kGrain / std::max<int64_t>(1, shape.numel())); }
  int64_t partials() const { return tasks_down * slots; }
  // Returns true if the sums of each task are final.
  bool direct() const { return tasks_down == 1 && slots_per_channel == 1; }

  int64_t channel_of(int64_t s) const { return s / slots_per_channel; }
  // Returns the start of slot s in its row; begin_of(slots) is the row's end.
  int64_t begin_of(int64_t s) const {
    return channel_of(s) * shape.inner + std::min(s % slots_per_channel * slot, shape.inner);
  }

 private:
  static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
  static int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }
};

}  // namespace leaky_ext::cpu
