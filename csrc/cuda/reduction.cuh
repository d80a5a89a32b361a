// d(alpha): how its sums are split over blocks, and where the blocks leave them.
//
//   By rows                                        By columns (columns.cuh)
//
//   channel 0 |tile|tile|tile|til|  rows of        period 0 | c0 c1 c2 c3 | c4 c5 c6 c7 |   one thread sums
//             |tile|tile|til|       `inner`        period 1 | c0 c1 c2 c3 | c4 c5 c6 c7 |   the columns of a
//   channel 1 |tile|tile|tile|til|  elements         ...    |      :      |      :      |   pack
//      ...      :    :
//   split       0    1    0    1                             block (row 0)  block (row 0)
//
//   block  has one split of one channel (by rows), or some columns of some periods (by columns)
//   sum    of a thread, in double; a tile's products are first added in the arithmetic type
//   partial sum   of a block, where other blocks have part in the same channel: a second launch (combine.cu) adds
//                 them up; where none has, the block writes the gradient itself
//
// Sums are added in a fixed order. The split depends on the sizes, dtype, alignment, strides and number of
// multiprocessors.
#pragma once

#include "columns.cuh"
#include "slope.cuh"

namespace leaky_ext::cuda {

struct ReductionPlan {
  Access access = Access::Strided;
  bool by_rows = true;
  int64_t splits = 1;  // by rows: blocks that share a channel
  Columns<int64_t> columns;
  // The partial sums are a matrix; channel c has `span` neighbouring columns of it from c * span on. No rows: the
  // kernel writes the gradient itself.
  int64_t partial_rows = 0, span = 1;
};

// Where a block leaves its sums.
struct Sums {
  double* partials;  // null: grad_alpha
  GradAlpha grad_alpha;

  Sums(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch)
      : partials(plan.partial_rows > 0 ? static_cast<double*>(launch.workspace) : nullptr),
        grad_alpha{args.grad_alpha, args.grad_alpha_dtype} {}

  // `place` in the matrix of partial sums; `channel` where it is the only sum of that channel.
  __device__ __forceinline__ void store(int64_t place, int64_t channel, double sum) const {
    if (partials != nullptr) {
      partials[place] = sum;
    } else {
      grad_alpha.store(channel, sum);
    }
  }
};

// Returns the sum of N values, added as a tree: the error grows with log(N). Overwrites the values.
template <int N, typename V>
__device__ __forceinline__ V tree_sum(V (&values)[N]) {
#pragma unroll
  for (int step = N / 2; step > 0; step /= 2) {
#pragma unroll
    for (int j = 0; j < step; ++j) values[j] += values[j + step];
  }
  return values[0];
}

// Each in the file of its name. backward_flat and, without args.grad_alpha, backward_columns compute grad_x alone.
void backward_flat(const BackwardArgs& args, Access access, const Launch& launch);
void backward_rows(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);
void backward_columns(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);
void combine(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);

}  // namespace leaky_ext::cuda
