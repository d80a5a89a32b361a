// Backward with d(alpha) by columns: slopes that change from element to element.
#include "backward.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand, typename Kind>
struct BackwardColumns : ByColumns<Backward<Operand, Kind>> {
  Sums sums;
  int half_groups;  // the largest power of two below the number of groups

  BackwardColumns(const BackwardArgs& args, Kind kind, const ReductionPlan& plan, const Launch& launch)
      : ByColumns<Backward<Operand, Kind>>(args, kind, plan.columns), sums(args, plan, launch), half_groups(0) {
    for (int power = 1; power < plan.columns.groups; power *= 2) half_groups = power;
  }
};

template <typename Operand, typename Kind>
__global__ void __launch_bounds__(kThreads, 2) backward_columns_kernel(const BackwardColumns<Operand, Kind> p) {
  using Index = typename Operand::Index;
  using V = Wide<typename Operand::T>;
  constexpr int kWidth = Operand::kWidth;
  // The sums of each thread. They are in shared memory because they are used once per tile, and registers for them
  // would leave fewer blocks resident with 16-bit elements. Without volatile, the compiler keeps them in registers.
  __shared__ volatile double sums[kWidth][kThreads];
  const int t = int(threadIdx.x);
  const Column<Index> column(p.columns, kWidth);
  const ColumnSlopes<Operand> slopes(p, column);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) sums[j][t] = 0;
  for_tiles(p, column, [&](const auto& packs) {
    const Inputs<Operand> in(p, packs);
    V tile_sum[kWidth] = {};
#pragma unroll
    for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
      backward_pack(
          p, in, packs, u, column.active, [&](int j) { return slopes.of[j]; },
          [&](int j) -> V& { return tile_sum[j]; });
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sums[j][t] = sums[j][t] + double(tile_sum[j]);
  });
  for (int step = p.half_groups; step > 0; step /= 2) {  // adds the sums of all groups to those of the first
    __syncthreads();
    if (column.group < step && column.group + step < p.columns.groups) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sums[j][t] = sums[j][t] + sums[j][t + step * p.columns.width];
    }
  }
  if (!column.active || column.group != 0) return;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const int64_t place = int64_t(column.number) * kWidth + j;
    const int64_t row = int64_t(column.row) * int64_t(p.columns.period) * kWidth;
    // Without partial sums, a period has each channel once. Its last pack may be incomplete.
    if (p.sums.partials != nullptr || place < int64_t(p.channels.channels.divisor)) {
      p.sums.store(row + place, place, sums[j][t]);
    }
  }
}

}  // namespace

void backward_columns(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  with_operand(args.dtype, args.shape.numel(), plan.access, [&](auto operand) {
    using Operand = typename decltype(operand)::Type;
    with_kind<Operand, Saved::Input, Saved::Output, Saved::OutputAndMask>(
        args.kind, std::false_type(), std::true_type(), [&](auto kind) {
          launch_kernel("backward_columns", backward_columns_kernel<Operand, decltype(kind)>, plan.columns.blocks(),
                        BackwardColumns<Operand, decltype(kind)>(args, kind, plan, launch), launch);
        });
  });
}

}  // namespace leaky_ext::cuda
