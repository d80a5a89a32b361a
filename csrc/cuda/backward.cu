// Chooses the kernels of a backward pass, and how d(alpha) is split over blocks.
#include "backward.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

int access_width(DType dtype, Access access) { return access == Access::Strided ? 1 : pack_width(dtype); }

ReductionPlan plan_rows(const Shape& shape, DType dtype, Access access, int multiprocessors) {
  ReductionPlan plan;
  plan.access = access;
  const int width = access_width(dtype, access);
  const int64_t packs = ceil_div(shape.outer * shape.inner, width);  // of a channel
  if (packs > kThreads * kPacksOfOneBlock) {
    const int64_t tiles = ceil_div(packs, kThreads * packs_in_flight(width));
    plan.splits =
        std::min({int64_t(multiprocessors) * kBlocksReduction / shape.channels, tiles, kPartials / shape.channels});
    plan.splits = std::max<int64_t>(1, plan.splits);
  }
  plan.partial_rows = plan.splits > 1 ? plan.splits : 0;
  return plan;
}

// Returns the number of elements after which the slopes repeat at the same positions of the packs.
int64_t period_of(const Shape& shape, int width) { return std::lcm(shape.channels * shape.inner, int64_t(width)); }

// Returns true if one row of blocks has each channel in only one column.
bool each_channel_once(const Shape& shape, int width) {
  return shape.inner == 1 && (shape.channels % width == 0 || shape.outer == 1);
}

ReductionPlan plan_columns(const Shape& shape, DType dtype, Access access, int multiprocessors) {
  ReductionPlan plan;
  plan.access = access;
  plan.by_rows = false;
  const int width = access_width(dtype, access);
  const int64_t repeat = shape.channels * shape.inner, period = period_of(shape, width);
  plan.columns = make_columns(shape.numel(), repeat, width, width, kPacksOfOneBlock,
                              int64_t(multiprocessors) * kBlocksReduction, kPartials / period);
  if (plan.columns.rows > 1 || !each_channel_once(shape, width)) {
    plan.partial_rows = plan.columns.rows * (period / repeat);
    plan.span = shape.inner;
  }
  return plan;
}

ReductionPlan plan_reduction(const BackwardArgs& args, Access access, int multiprocessors) {
  const Shape& shape = args.shape;
  const int pack = pack_width(args.dtype);
  const bool packed = access != Access::Strided;
  const bool packed_rows = packed && (shape.channels == 1 || shape.inner % pack == 0);
  const bool long_rows = shape.inner * 16 / pack >= kLongRow && (packed_rows || !packed);
  const bool small = shape.numel() <= kOneLaunch;
  const auto columns_fit = [&](int width) {
    const int64_t period = period_of(shape, width);
    return each_channel_once(shape, width) || (period <= kPartials && period <= shape.numel());
  };
  if (shape.channels == 1 || long_rows || (small && shape.inner > 1) || !columns_fit(1)) {
    return plan_rows(shape, args.dtype, packed_rows ? access : Access::Strided, multiprocessors);
  }
  const bool packed_columns = packed && (small ? each_channel_once(shape, pack) : columns_fit(pack));
  return plan_columns(shape, args.dtype, packed_columns ? access : Access::Strided, multiprocessors);
}

}  // namespace

size_t workspace_bytes(const BackwardArgs& args, int multiprocessors) {
  if (args.grad_alpha == nullptr || args.shape.numel() == 0) return 0;
  const ReductionPlan plan = plan_reduction(args, operand_access(args), multiprocessors);
  return sizeof(double) * size_t(plan.partial_rows * plan.span * args.shape.channels);
}

void backward(const BackwardArgs& args, const Launch& launch) {
  if (args.grad_alpha == nullptr) {
    if (args.grad_x != nullptr && args.shape.numel() > 0) backward_without_sums(args, launch);
    return;
  }
  if (args.shape.channels == 0) return;
  if (args.shape.numel() == 0) return combine(args, ReductionPlan(), launch);  // zeros
  const ReductionPlan plan = plan_reduction(args, operand_access(args), launch.multiprocessors);
  plan.by_rows ? backward_rows(args, plan, launch) : backward_columns(args, plan, launch);
  if (plan.partial_rows > 0) combine(args, plan, launch);
}

}  // namespace leaky_ext::cuda
