// How a backward pass that sums d(alpha) is cut into tasks. The cut depends on sizes alone, never on threads: each
// partial sum is over the same elements and they are added in the same order, so the bits do not depend on the number
// of threads.
//
//     memory order ->  one row = channels * inner elements, here 3 channels in 2 slots each
//
//              channel 0   | channel 1   | channel 2
//     row 0  [ slot | slot | slot | slot | slot | slot ]   row     one index of `outer`
//     row 1  [   task 0    |   task 1    |   task 2    ]   slot    a stretch of a row with one slope; its sum is a
//            +-------------+-------------+-------------+           partial
//     row 2  [   task 3    |   task 4    |   task 5    ]   task    rows x slots, what a thread takes at a time
//     row 3  [             |             |             ]   block   row block: the rows of a task; slot block: its slots
//                                                          grain   fewest tasks worth a thread
//
//     partials: one row of 6 for each row block, added over the blocks, then over the slots of a channel
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
  int64_t rows_per_task = 0, row_blocks = 0;
  int64_t slots_per_task = 0, slot_blocks = 0;

  explicit Partition(const Shape& s) : shape(s) {
    const int64_t n = s.numel(), row = s.channels * s.inner;
    if (n == 0) return;
    const int64_t part = n <= kGrain ? kGrain : kSumPart;
    // A channel is cut where it is long, but never into more partials than may be held.
    const int64_t most = std::max<int64_t>(1, kMaxPartials / 2 / s.channels);
    slots_per_channel = std::clamp<int64_t>(s.inner / part, 1, most);
    slot = round_up(divide_up(s.inner, slots_per_channel), slots_per_channel > 1 ? kChunk : 1);
    slots_per_channel = divide_up(s.inner, slot);
    slots = s.channels * slots_per_channel;

    row_blocks = std::min({s.outer, std::max<int64_t>(1, kMaxPartials / slots), divide_up(n, part)});
    rows_per_task = divide_up(s.outer, row_blocks);
    row_blocks = divide_up(s.outer, rows_per_task);
    // Whole rows where they are short; else as many slots as make a task, in pieces worth reading.
    slots_per_task = row <= kChunk ? slots : divide_up(std::max(part / rows_per_task, kChunk), slot);
    slots_per_task = std::min(slots_per_task, slots);
    slot_blocks = divide_up(slots, slots_per_task);
  }

  int64_t tasks() const { return row_blocks * slot_blocks; }
  int64_t grain() const { return std::max<int64_t>(1, tasks() * kGrain / std::max<int64_t>(1, shape.numel())); }
  int64_t partials() const { return row_blocks * slots; }
  // Whether the sums of each task are final.
  bool direct() const { return row_blocks == 1 && slots_per_channel == 1; }

  int64_t channel_of(int64_t s) const { return s / slots_per_channel; }
  // Where slot s starts in its row; begin_of(slots) is the row's end.
  int64_t begin_of(int64_t s) const {
    return channel_of(s) * shape.inner + std::min(s % slots_per_channel * slot, shape.inner);
  }

 private:
  static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
  static int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }
};

}  // namespace leaky_ext::cpu
