// grad_x, with or without d(alpha), by columns: slopes that change from element to element.
#include "backward.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand, typename Kind>
struct BackwardColumns : Backward<Operand, Kind> {
  using Index = typename Operand::Index;

  Channels<Index> channels;
  Columns<Index> columns;
  Sums sums;
  int half_groups;  // the largest power of two below the number of groups

  BackwardColumns(const BackwardArgs& args, Kind kind, const ReductionPlan& plan, const Launch& launch)
      : Backward<Operand, Kind>(args, kind),
        channels(args.shape),
        columns(plan.columns),
        sums(args, plan, launch),
        half_groups(0) {
    for (int power = 1; power < columns.groups; power *= 2) half_groups = power;
  }
};

// What each thread of a block has summed, in shared memory: it is touched once a tile, and in registers it would cost a
// block of 16-bit elements its place on the multiprocessor. Volatile, or else the compiler keeps it in registers.
template <int kWidth>
using ThreadSums = volatile double[kWidth][kThreads];

// Adds up the sums of a block's groups: those of the first group end as the sums of all.
template <int kWidth, typename Index>
__device__ __forceinline__ void add_groups(const Column<Index>& column, int width, int groups, int half_groups,
                                           ThreadSums<kWidth>& sums) {
  const int t = int(threadIdx.x);
  for (int step = half_groups; step > 0; step /= 2) {
    __syncthreads();
    if (column.group < step && column.group + step < groups) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sums[j][t] = sums[j][t] + sums[j][t + step * width];
    }
  }
}

// grad_x of a tile; what its elements add to d(alpha) is given to add(j, sum), one for each element of a pack.
template <bool kReduce, typename Operand, typename Kind, typename Add, typename Whole>
__device__ __forceinline__ void backward_tile(const BackwardColumns<Operand, Kind>& p,
                                              const Column<typename Operand::Index>& column,
                                              typename Operand::Index tile,
                                              const Slope<Wide<typename Operand::T>> (&slopes)[Operand::kWidth],
                                              Add add, Whole whole) {
  using V = Wide<typename Operand::T>;
  const ColumnPacks<Operand> packs(whole, column, p.columns, tile, p.numel);
  const Inputs<Operand> in(p, packs);
  V tile_sum[Operand::kWidth] = {};
#pragma unroll
  for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
    backward_pack<kReduce>(
        p, in, packs, u, column.active, [&](int j) { return slopes[j]; }, [&](int j) -> V& { return tile_sum[j]; });
  }
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    if (kReduce) add(j, double(tile_sum[j]));
  }
}

template <bool kReduce, typename Operand, typename Kind>
__global__ void __launch_bounds__(kThreads, 2) backward_columns_kernel(const BackwardColumns<Operand, Kind> p) {
  using Index = typename Operand::Index;
  constexpr int kWidth = Operand::kWidth;
  __shared__ ThreadSums<kWidth> sums;
  const int t = int(threadIdx.x);
  const Column<Index> column(p.columns, kWidth);
  Slope<Wide<typename Operand::T>> slopes[kWidth];
  column_slopes<Operand>(p.alpha, p.channels, column, p.numel, slopes);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (kReduce) sums[j][t] = 0;
  }
  const auto add = [&](int j, double sum) { sums[j][t] = sums[j][t] + sum; };
  Index tile = column.row;
  for (; tile < p.columns.whole_tiles; tile += p.columns.rows) {
    backward_tile<kReduce>(p, column, tile, slopes, add, std::true_type());
  }
  if (tile == p.columns.whole_tiles) backward_tile<kReduce>(p, column, tile, slopes, add, std::false_type());
  if (!kReduce) return;
  add_groups(column, p.columns.width, p.columns.groups, p.half_groups, sums);
  if (!column.active || column.group != 0) return;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const int64_t place = int64_t(column.number) * kWidth + j;
    const int64_t row = int64_t(column.row) * int64_t(p.columns.period) * kWidth;
    // Without partial sums the channel is last, and one period holds each channel once; its last pack may be cut short.
    if (p.sums.partials != nullptr || place < int64_t(p.channels.channels.divisor)) {
      p.sums.store(row + place, place, sums[j][t]);
    }
  }
}

template <bool kReduce, typename Operand, typename Kind>
void launch_columns(const BackwardArgs& args, Kind kind, ReductionPlan plan, const Launch& launch) {
  constexpr auto kKernel = backward_columns_kernel<kReduce, Operand, Kind>;
  if (!kReduce) {
    const int64_t repeat = args.shape.channels * args.shape.inner, numel = args.shape.numel();
    plan.columns = make_columns(numel, repeat, Operand::kWidth, Operand::kWidth, 0,
                                most_blocks<kKernel>("backward_columns", launch), numel);
  }
  launch_kernel("backward_columns", kKernel, plan.columns.blocks(),
                BackwardColumns<Operand, Kind>(args, kind, plan, launch), launch);
}

}  // namespace

void backward_columns(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  with_operand(args.dtype, args.shape.numel(), plan.access, [&](auto operand) {
    using Operand = typename decltype(operand)::Type;
    if (args.grad_alpha != nullptr) {
      with_backward_kind<Operand, Saved::Input, Saved::Output, Saved::OutputAndMask>(
          args, std::true_type(), [&](auto kind) { launch_columns<true, Operand>(args, kind, plan, launch); });
    } else if constexpr (Operand::kWidth > 1) {
      with_backward_kind<Operand, Saved::Input, Saved::Output, Saved::Mask>(
          args, std::true_type(), [&](auto kind) { launch_columns<false, Operand>(args, kind, plan, launch); });
    }
  });
}

}  // namespace leaky_ext::cuda
