// d(alpha): how its sum is split over blocks, and where the blocks write their sums.
//
//   By rows                                        By columns (columns.cuh)
//
//   channel 0 |tile|tile|tile|til|  rows of        period 0 | c0 c1 c2 c3 | c4 c5 c6 c7 |   one thread sums
//             |tile|tile|til|       `inner`        period 1 | c0 c1 c2 c3 | c4 c5 c6 c7 |   the columns of a
//   channel 1 |tile|tile|tile|til|  elements         ...    |      :      |      :      |   pack
//      ...      :    :
//   split       0    1    0    1                             block (row 0)  block (row 0)
//
//   block         has one split of one channel (by rows), or some columns of some periods (by columns)
//   sum           of a thread, in double; the products of a tile are first added in the arithmetic type
//   partial sum   of a block, if several blocks share a channel; a second launch (combine.cu) adds the partial sums.
//                 Otherwise the block writes the gradient itself.
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
  // The partial sums are a matrix of partial_rows rows; channel c has the `span` columns from c * span on. 0 rows: the
  // kernel writes the gradient itself.
  int64_t partial_rows = 0, span = 1;
};

// Where a block writes its sums of d(alpha).
struct Sums {
  double* partials;  // null: the block writes the gradient itself
  void* grad_alpha;
  DType dtype;  // of grad_alpha

  Sums(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch)
      : partials(plan.partial_rows > 0 ? static_cast<double*>(launch.workspace) : nullptr),
        grad_alpha(args.grad_alpha),
        dtype(args.grad_alpha_dtype) {}

  // Writes the sum to `place` in the matrix of partial sums, or to the gradient of `channel`.
  __device__ __forceinline__ void store(int64_t place, int64_t channel, double sum) const {
    if (partials != nullptr) {
      partials[place] = sum;
      return;
    }
    with_type(dtype, [&](auto zero) {
      using T = decltype(zero);
      static_cast<T*>(grad_alpha)[channel] = narrow<T>(sum);
    });
  }
};

// Returns the sum of N values, added as a tree, so that the error grows with log(N). Overwrites the values.
template <int N, typename V>
__device__ __forceinline__ V tree_sum(V (&values)[N]) {
#pragma unroll
  for (int step = N / 2; step > 0; step /= 2) {
#pragma unroll
    for (int j = 0; j < step; ++j) values[j] += values[j + step];
  }
  return values[0];
}

void backward_without_sums(BackwardArgs args, const Launch& launch);  // grad_x.cu
void backward_rows(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);
void backward_columns(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);
void combine(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch);

}  // namespace leaky_ext::cuda
