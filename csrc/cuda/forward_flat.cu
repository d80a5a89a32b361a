// y if there is one slope, or one for each pack.
#include "forward.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand, typename Kind, typename V, typename Whole>
__device__ __forceinline__ void forward_tile(const Flat<Forward<Operand, Kind>>& p, typename Operand::Index tile,
                                             OneSlope<V>& one_slope, Whole whole) {
  constexpr int kPacks = Packs<Operand>::kPacks;
  const TilePacks<Operand> packs(whole, tile, p.numel);
  typename Operand::Raw x[kPacks];
  load_all(p.x, packs, x);
  typename Operand::T* y[Packs<Operand>::kPacks];
  p.y.places(packs.i, y);
  V alpha[kPacks];
  pack_slopes(p, packs, one_slope, alpha);
#pragma unroll
  for (int u = 0; u < kPacks; ++u)
    forward_pack(p, x[u], y[u], packs.i[u], packs.count[u], [&](int) { return alpha[u]; });
}

template <typename Operand, typename Kind>
__global__ void __launch_bounds__(kThreads, 4) forward_flat_kernel(const Flat<Forward<Operand, Kind>> p) {
  OneSlope<Wide<typename Operand::T>> slope(p.alpha, 0);
  for_tiles<Operand>(p.whole_tiles, [&](auto tile, auto whole) { forward_tile(p, tile, slope, whole); });
}

}  // namespace

void forward_flat(const ForwardArgs& args, Access access, const Launch& launch) {
  with_operand(args.dtype, args.shape.numel(), access, [&](auto operand) {
    using Operand = typename decltype(operand)::Type;
    with_forward_kind<Operand, false, true>(args, [&](auto kind) {
      using Kind = decltype(kind);
      launch_tiles<Operand, forward_flat_kernel<Operand, Kind>>(
          "forward_flat", Flat<Forward<Operand, Kind>>(args, kind), args.shape.numel(), launch);
    });
  });
}

}  // namespace leaky_ext::cuda
