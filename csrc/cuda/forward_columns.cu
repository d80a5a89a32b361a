// y by columns: slopes that change from element to element.
#include "forward.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand, typename Kind>
struct ForwardColumns : Forward<Operand, Kind> {
  Channels<typename Operand::Index> channels;
  Columns<typename Operand::Index> columns;

  ForwardColumns(const ForwardArgs& args, Kind kind, const Columns<int64_t>& columns)
      : Forward<Operand, Kind>(args, kind), channels(args.shape), columns(columns) {}
};

template <typename Operand, typename Kind, typename SlopeOf, typename Whole>
__device__ __forceinline__ void forward_tile(const ForwardColumns<Operand, Kind>& p,
                                             const Column<typename Operand::Index>& column,
                                             typename Operand::Index tile, const SlopeOf& slope_of, Whole whole) {
  ColumnPacks<Operand> packs(whole, column, p.columns, tile, p.numel);
  // y may be x: a thread without a column must not read what another writes.
#pragma unroll
  for (int u = 0; u < Packs<Operand>::kPacks; ++u) packs.count[u] = column.active ? packs.count[u] : 0;
  typename Operand::Raw x[Packs<Operand>::kPacks];
  load_all(p.x, packs, x);
  typename Operand::T* y[Packs<Operand>::kPacks];
  p.y.places(packs.i, y);
#pragma unroll
  for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
    forward_pack(p, x[u], y[u], packs.i[u], packs.count[u], slope_of);
  }
}

template <typename Operand, typename Kind>
__global__ void __launch_bounds__(kThreads, 3) forward_columns_kernel(const ForwardColumns<Operand, Kind> p) {
  using Index = typename Operand::Index;
  const Column<Index> column(p.columns, Operand::kWidth);
  Slope<Wide<typename Operand::T>> slopes[Operand::kWidth];
  column_slopes<Operand>(p.alpha, p.channels, column, p.numel, slopes);
  const auto slope_of = [&](int j) { return slopes[j].value; };
  Index tile = column.row;
  for (; tile < p.columns.whole_tiles; tile += p.columns.rows)
    forward_tile(p, column, tile, slope_of, std::true_type());
  if (tile == p.columns.whole_tiles) forward_tile(p, column, tile, slope_of, std::false_type());
}

}  // namespace

void forward_columns(const ForwardArgs& args, Access access, const Launch& launch) {
  with_operand(args.dtype, args.shape.numel(), access, [&](auto operand) {
    using Operand = typename decltype(operand)::Type;
    if constexpr (Operand::kWidth > 1) {
      with_forward_kind<Operand, true>(args, [&](auto kind) {
        using Kind = decltype(kind);
        constexpr auto kKernel = forward_columns_kernel<Operand, Kind>;
        const int64_t numel = args.shape.numel();
        const auto columns = make_columns(numel, args.shape.channels * args.shape.inner, Operand::kWidth, 8, 0,
                                          most_blocks<kKernel>("forward_columns", launch), numel);
        launch_kernel("forward_columns", kKernel, columns.blocks(), ForwardColumns<Operand, Kind>(args, kind, columns),
                      launch);
      });
    }
  });
}

}  // namespace leaky_ext::cuda
