// Backward with d(alpha) by rows: one slope for all elements, or channels with long rows of contiguous elements.
#include <cub/block/block_reduce.cuh>

#include "backward.cuh"
#include "elementwise.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand, typename Kind>
struct BackwardRows : Backward<Operand, Kind> {
  using Index = typename Operand::Index;

  Sums sums;
  Index channels, inner;
  Divider<Index> row_packs;
  Index packs;        // of a channel
  Index whole_tiles;  // of a channel; an incomplete one may follow
  Index splits;

  BackwardRows(const BackwardArgs& args, Kind kind, const ReductionPlan& plan, const Launch& launch)
      : Backward<Operand, Kind>(args, kind),
        sums(args, plan, launch),
        channels(Index(args.shape.channels)),
        inner(Index(args.shape.inner)),
        row_packs(ceil_div(args.shape.inner, Operand::kWidth)),
        packs(Index(args.shape.outer * row_packs.divisor)),
        whole_tiles(Index(args.shape.numel() / args.shape.channels / kTileElements<Operand>)),
        splits(Index(plan.splits)) {}
};

// The packs of a channel, counted through all its rows.
template <typename Operand, bool kWhole>
struct RowPacks : Packs<Operand> {
  template <typename Kind>
  __device__ __forceinline__ RowPacks(const BackwardRows<Operand, Kind>& p, typename Operand::Index channel,
                                      typename Operand::Index tile) {
    using Index = typename Operand::Index;
#pragma unroll
    for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
      const Index pack = (tile * Packs<Operand>::kPacks + u) * kThreads + threadIdx.x;
      const Index row = p.row_packs.divide(pack);
      this->i[u] = (row * p.channels + channel) * p.inner + (pack - row * p.row_packs.divisor) * Operand::kWidth;
      this->count[u] = kWhole || pack < p.packs ? Operand::kWidth : 0;
    }
  }
};

template <bool kWhole, typename Operand, typename Kind>
__device__ __forceinline__ double tile_sum(const BackwardRows<Operand, Kind>& p, typename Operand::Index channel,
                                           typename Operand::Index tile,
                                           OneSlope<Wide<typename Operand::T>>& one_slope) {
  const auto sum_of = [&](const auto& packs) {
    const Inputs<Operand> in(p, packs);
    const auto slope = one_slope.get(p.alpha);
    Wide<typename Operand::T> sum[Packs<Operand>::kPacks] = {};
#pragma unroll
    for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
      backward_pack(p, in, packs, u, true, [&](int) { return slope; }, [&](int) -> auto& { return sum[u]; });
    }
    return double(tree_sum(sum));
  };
  if (p.kind.many_slopes) return sum_of(RowPacks<Operand, kWhole>(p, channel, tile));
  return sum_of(TilePacks<Operand, kWhole>(tile, p.numel));  // one row; its last pack may be incomplete
}

// A block has one split of one channel: every splits-th tile. Three blocks are resident on a multiprocessor; two if
// numbers are wide, so that no register is spilled.
template <typename Operand, typename Kind>
__global__ void __launch_bounds__(kThreads, sizeof(typename Operand::Index) + sizeof(typename Operand::T) > 8 ? 2 : 3)
    backward_rows_kernel(const BackwardRows<Operand, Kind> p) {
  using Index = typename Operand::Index;
  using BlockSum = cub::BlockReduce<double, kThreads>;
  __shared__ typename BlockSum::TempStorage storage;

  const Index split = blockIdx.x / p.channels, channel = blockIdx.x - split * p.channels;
  OneSlope<Wide<typename Operand::T>> slope(p.alpha, int64_t(channel));
  double sum = 0;
  Index tile = split;
  for (; tile < p.whole_tiles; tile += p.splits) sum += tile_sum<true>(p, channel, tile, slope);
  if (tile == p.whole_tiles) sum += tile_sum<false>(p, channel, tile, slope);
  sum = BlockSum(storage).Sum(sum);
  if (threadIdx.x == 0) p.sums.store(blockIdx.x, int64_t(channel), sum);
}

}  // namespace

void backward_rows(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  with_operand(args.dtype, args.shape.numel(), plan.access, [&](auto operand) {
    using Operand = typename decltype(operand)::Type;
    with_kind<Operand, Saved::Input, Saved::Output, Saved::OutputAndMask>(
        args.kind, std::false_type(), args.shape.channels > 1, [&](auto kind) {
          using Kind = decltype(kind);
          launch_kernel("backward_rows", backward_rows_kernel<Operand, Kind>, plan.splits * args.shape.channels,
                        BackwardRows<Operand, Kind>(args, kind, plan, launch), launch);
        });
  });
}

}  // namespace leaky_ext::cuda
