// grad_x, with or without d(alpha), by columns: slopes that change from element to element.
#include "backward.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand>
struct BackwardColumns : Backward<Operand> {
  using Index = typename Operand::Index;

  Channels<Index> channels;
  Columns<Index> columns;
  Sums sums;
  int half_groups;  // the largest power of two below the number of groups

  BackwardColumns(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch)
      : Backward<Operand>(args), channels(args.shape), columns(plan.columns), sums(args, plan, launch), half_groups(0) {
    for (int power = 1; power < columns.groups; power *= 2) half_groups = power;
  }
};

// Adds up the sums of a block's groups: those of the first group end as the sums of all.
template <int Width, typename Index>
__device__ __forceinline__ void add_groups(const Column<Index>& column, int width, int groups, int half_groups,
                                           double (&sum)[Width]) {
  __shared__ double shared[Width][kThreads];
  const int t = int(threadIdx.x);
#pragma unroll
  for (int j = 0; j < Width; ++j) shared[j][t] = sum[j];
  for (int step = half_groups; step > 0; step /= 2) {
    __syncthreads();
    if (column.group < step && column.group + step < groups) {
#pragma unroll
      for (int j = 0; j < Width; ++j) shared[j][t] += shared[j][t + step * width];
    }
  }
#pragma unroll
  for (int j = 0; j < Width; ++j) sum[j] = shared[j][t];
}

template <bool kReduce, typename Operand>
__global__ void __launch_bounds__(kThreads, 2) backward_columns_kernel(const BackwardColumns<Operand> p) {
  using Index = typename Operand::Index;
  using V = Wide<typename Operand::T>;
  constexpr int kUnroll = kPacksInFlight<Operand::kWidth>;
  constexpr int kWidth = Operand::kWidth;
  const Column<Index> column(p.columns);
  V alpha[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const Index i = column.number * kWidth + j;
    alpha[j] = column.active && i < p.numel ? slope<V>(p.alpha, int64_t(p.channels.of(i))) : V(0);
  }
  double sum[kWidth] = {};
  const Index step = p.columns.rows * p.columns.groups;
  for (Index first = column.row * p.columns.groups; first < p.columns.periods; first += step * kUnroll) {
    Index i[kUnroll];
    int count[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const Index period = first + u * step + column.group;
      i[u] = (period * p.columns.period + column.number) * kWidth;
      count[u] = column.active && period < p.columns.periods ? elements_at<Operand>(i[u], p.numel) : 0;
    }
    const Inputs<Operand, kUnroll> in(p, i, count);
    V products[kUnroll][kWidth];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      backward_pack(p, in, u, i[u], count[u], [&](int j) { return alpha[j]; }, kReduce ? products[u] : nullptr);
    }
    if (kReduce) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        V column_products[kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) column_products[u] = products[u][j];
        sum[j] += double(tree_sum(column_products));
      }
    }
  }
  if (!kReduce) return;
  add_groups(column, p.columns.width, p.columns.groups, p.half_groups, sum);
  if (!column.active || column.group != 0) return;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const int64_t place = int64_t(column.number) * kWidth + j;
    const int64_t row = int64_t(column.row) * int64_t(p.columns.period) * kWidth;
    // Without partial sums the channel is last, and one period holds each channel once; its last pack may be cut short.
    if (p.sums.partials != nullptr || place < int64_t(p.channels.channels.divisor)) {
      p.sums.store(row + place, place, sum[j]);
    }
  }
}

template <bool kReduce, typename Operand>
void launch_columns(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  launch_kernel("backward_columns", backward_columns_kernel<kReduce, Operand>, plan.columns.blocks(),
                BackwardColumns<Operand>(args, plan, launch), launch);
}

}  // namespace

void backward_columns(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  with_type(args.dtype, [&](auto type) {
    with_index(args.shape.numel(), [&](auto index) {
      using T = decltype(type);
      using Index = decltype(index);
      if (args.grad_alpha == nullptr) {
        launch_columns<false, Dense<T, Index>>(args, plan, launch);
      } else if (plan.packed) {
        launch_columns<true, Dense<T, Index>>(args, plan, launch);
      } else {
        launch_columns<true, Strided<T, Index>>(args, plan, launch);
      }
    });
  });
}

}  // namespace leaky_ext::cuda
