// grad_x and d(alpha), by rows: one slope for all, or channels whose elements lie together in long rows.
#include <cub/block/block_reduce.cuh>

#include "backward.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

// The elements of a channel: `packs` packs, in rows of row_packs packs each. A unit is a part of one channel; its block
// takes every splits-th tile.
template <typename Operand>
struct BackwardRows : Backward<Operand> {
  using Index = typename Operand::Index;

  Sums sums;
  Index channels, inner, packs;
  Divider<Index> row_packs;
  Index splits, units;

  BackwardRows(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch)
      : Backward<Operand>(args), sums(args, plan, launch), channels(Index(args.shape.channels)) {
    const bool one_slope = args.shape.channels == 1;  // one row, whose last pack may be cut short
    const int64_t row = one_slope ? args.shape.numel() : args.shape.inner;
    inner = Index(row);
    row_packs = Divider<Index>(ceil_div(row, Operand::kWidth));
    packs = Index(one_slope ? row_packs.divisor : args.shape.outer * row_packs.divisor);
    splits = Index(plan.splits);
    units = Index(plan.splits * args.shape.channels);
  }
};

// Registers for three blocks on a multiprocessor; for two where numbers are wide, so that nothing is spilled.
template <typename Operand>
__global__ void __launch_bounds__(kThreads, sizeof(typename Operand::Index) + sizeof(typename Operand::T) > 8 ? 2 : 3)
    backward_rows_kernel(const BackwardRows<Operand> p) {
  using Index = typename Operand::Index;
  using V = Wide<typename Operand::T>;
  constexpr int kUnroll = kPacksInFlight<Operand::kWidth>, kTile = kThreads * kUnroll;
  using BlockSum = cub::BlockReduce<double, kThreads>;
  __shared__ typename BlockSum::TempStorage storage;

  for (Index unit = blockIdx.x; unit < p.units; unit += gridDim.x) {
    const Index split = unit / p.channels, channel = unit - split * p.channels;
    const V alpha = slope<V>(p.alpha, int64_t(channel));
    double sum = 0;
    for (Index base = split * kTile; base < p.packs; base += p.splits * kTile) {
      Index i[kUnroll];
      int count[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const Index pack = base + u * kThreads + threadIdx.x;
        const Index row = p.row_packs.divide(pack);
        const Index place = (pack - row * p.row_packs.divisor) * Operand::kWidth;
        i[u] = (row * p.channels + channel) * p.inner + place;
        count[u] = pack < p.packs ? elements_at<Operand>(place, p.inner) : 0;
      }
      const Inputs<Operand, kUnroll> in(p, i, count);
      V products[kUnroll][Operand::kWidth], packs[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        backward_pack(p, in, u, i[u], count[u], [&](int) { return alpha; }, products[u]);
        packs[u] = tree_sum(products[u]);
      }
      sum += double(tree_sum(packs));
    }
    sum = BlockSum(storage).Sum(sum);
    if (threadIdx.x == 0) p.sums.store(int64_t(unit), int64_t(channel), sum);
    __syncthreads();  // the storage is used again
  }
}

template <typename Operand>
void launch_rows(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  const int64_t blocks =
      std::min(plan.splits * args.shape.channels, int64_t(launch.multiprocessors) * kBlocksElementwise);
  launch_kernel("backward_rows", backward_rows_kernel<Operand>, blocks, BackwardRows<Operand>(args, plan, launch),
                launch);
}

}  // namespace

void backward_rows(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  with_type(args.dtype, [&](auto type) {
    with_index(args.shape.numel(), [&](auto index) {
      using T = decltype(type);
      using Index = decltype(index);
      plan.packed ? launch_rows<Dense<T, Index>>(args, plan, launch)
                  : launch_rows<Strided<T, Index>>(args, plan, launch);
    });
  });
}

}  // namespace leaky_ext::cuda
