// d(alpha): how its sums are split over blocks, and where the blocks leave them.
//
// By rows: a block sums elements of one channel, which lie together in rows of `inner`. By columns (columns.cuh): a
// thread sums a few columns of its own. Either way a block adds up what its threads found, in a fixed order. It writes
// the gradient itself where no other block has part in it; else it leaves partial sums, and a second launch adds those
// up, in a fixed order too. So the bits depend on the sizes and on the device, and on nothing else.
#pragma once

#include "columns.cuh"
#include "slope.cuh"

namespace leaky_ext::cuda {

struct ReductionPlan {
  bool packed = false;  // 16 bytes at once
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

// The sum of N values, as a tree: the error grows with log(N). The values are lost.
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
void backward_flat(const BackwardArgs& args, bool packed, const Launch& launch);
void backward_rows(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);
void backward_columns(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);
void combine(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);

}  // namespace leaky_ext::cuda
