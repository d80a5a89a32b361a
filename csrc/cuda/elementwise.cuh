// Passes that compute every element by itself: forward, and grad_x without d(alpha). A pass P has
//
//   P(args, kind)                      the operands
//   P::run(packs, active, slopes)      computes the packs of a thread. It calls slopes() after it has issued its loads;
//                                      slopes()(u, j) is the slope of element j of pack u
//   P::kFlatBlocks, P::kColumnBlocks   for __launch_bounds__: the fewest blocks resident on a multiprocessor
//   P::kMultiple                       a period of columns is a multiple of this many elements
#pragma once

#include "columns.cuh"
#include "kinds.cuh"
#include "launch.h"
#include "slope.cuh"

namespace leaky_ext::cuda {

// The packs of a thread in a tile: every kThreads-th.
template <typename Operand, bool kWhole>
struct TilePacks : Packs<Operand> {
  __device__ __forceinline__ TilePacks(typename Operand::Index tile, typename Operand::Index numel) {
    constexpr int kPacks = Packs<Operand>::kPacks;
    // 64 bits: the compiler may then compute one address, and add constants to it.
    const uint64_t first = uint64_t(tile * (kPacks * kThreads) + threadIdx.x) * Operand::kWidth;
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
      this->i[u] = first + uint64_t(u) * (kThreads * Operand::kWidth);
      this->count[u] = kWhole ? Operand::kWidth : elements_at<Operand>(this->i[u], numel);
    }
  }
};

// The slopes of packs that have one slope each. Construct it after the loads of the data are issued.
template <typename Operand>
struct PackSlopes {
  using V = Wide<typename Operand::T>;
  V value[Packs<Operand>::kPacks];

  template <typename Params>
  __device__ __forceinline__ PackSlopes(const Params& p, const Packs<Operand>& packs, OneSlope<V>& one_slope) {
    constexpr int kPacks = Packs<Operand>::kPacks;
    if (p.kind.many_slopes) {
      RawSlope raw[kPacks];
#pragma unroll
      for (int u = 0; u < kPacks; ++u) {
        const auto i = typename Operand::Index(packs.i[u]);
        raw[u] = packs.count[u] > 0 ? load_slope(p.alpha, int64_t(p.channels.of(i))) : 0;
      }
#pragma unroll
      for (int u = 0; u < kPacks; ++u) value[u] = to_slope<V>(p.alpha, raw[u]);
    } else {
#pragma unroll
      for (int u = 0; u < kPacks; ++u) value[u] = one_slope.get(p.alpha).value;
    }
  }

  __device__ __forceinline__ V operator()(int u, int) const { return value[u]; }
};

// The parameters of a kernel for which each pack has one slope.
template <typename Pass>
struct Flat : Pass {
  Channels<typename Pass::Index> channels;
  typename Pass::Index whole_tiles;  // an incomplete one may follow

  template <typename Args, typename Kind>
  Flat(const Args& args, Kind kind)
      : Pass(args, kind),
        channels(args.shape),
        whole_tiles(args.shape.numel() / kTileElements<typename Pass::OperandType>) {}
};

// A block of a packed kernel has one tile. A block of a scalar kernel loops over tiles, because its setup is expensive.
template <typename Pass>
__global__ void __launch_bounds__(kThreads, Pass::kFlatBlocks) elementwise_flat_kernel(const Flat<Pass> p) {
  using Operand = typename Pass::OperandType;
  OneSlope<Wide<typename Operand::T>> one_slope(p.alpha, 0);
  const auto run = [&](const auto& packs) {
    p.run(packs, true, [&] { return PackSlopes<Operand>(p, packs, one_slope); });
  };
  typename Operand::Index tile = blockIdx.x;
  for (; tile < p.whole_tiles; tile += gridDim.x) {
    run(TilePacks<Operand, true>(tile, p.numel));
    if (Operand::kWidth > 1) return;
  }
  if (tile == p.whole_tiles) run(TilePacks<Operand, false>(tile, p.numel));
}

// Slopes that change within a pack.
template <typename Pass>
__global__ void __launch_bounds__(kThreads, Pass::kColumnBlocks) elementwise_columns_kernel(const ByColumns<Pass> p) {
  const Column<typename Pass::Index> column(p.columns, Pass::OperandType::kWidth);
  const ColumnSlopes<typename Pass::OperandType> slopes(p, column);
  for_tiles(p, column, [&](const auto& packs) {
    p.run(packs, column.active, [&] { return [&](int, int j) { return slopes.of[j].value; }; });
  });
}

// Launches a pass. kWhat: the values of `what` that the pass supports (kinds.cuh).
template <template <typename, typename> class Pass, auto... kWhat, typename Args, typename What, typename Mask>
void launch_elementwise(const char* name, const Args& args, Access access, What what, Mask mask, bool many_slopes,
                        const Launch& launch) {
  const int64_t numel = args.shape.numel(), repeat = args.shape.channels * args.shape.inner;
  const bool slope_per_pack = !many_slopes || args.shape.inner % pack_width(args.dtype) == 0;
  with_operand(args.dtype, numel, access, [&](auto operand) {
    using Operand = typename decltype(operand)::Type;
    if (slope_per_pack || access == Access::Strided) {
      with_kind<Operand, kWhat...>(what, mask, many_slopes, [&](auto kind) {
        using P = Pass<Operand, decltype(kind)>;
        const int64_t tiles = ceil_div(numel, kTileElements<Operand>);
        const int64_t blocks =
            Operand::kWidth > 1 ? tiles : std::min(tiles, most_blocks<elementwise_flat_kernel<P>>(name, launch));
        launch_kernel(name, elementwise_flat_kernel<P>, blocks, Flat<P>(args, kind), launch);
      });
    } else if constexpr (Operand::kWidth > 1) {
      with_kind<Operand, kWhat...>(what, mask, std::true_type(), [&](auto kind) {
        using P = Pass<Operand, decltype(kind)>;
        const auto columns = make_columns(numel, repeat, Operand::kWidth, P::kMultiple, 0,
                                          most_blocks<elementwise_columns_kernel<P>>(name, launch), numel);
        launch_kernel(name, elementwise_columns_kernel<P>, columns.blocks(), ByColumns<P>(args, kind, columns), launch);
      });
    }
  });
}

}  // namespace leaky_ext::cuda
