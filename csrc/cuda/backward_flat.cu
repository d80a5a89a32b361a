// Only grad_x, if there is one slope, or one for each pack.
#include "backward.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand, typename Kind, typename V, typename Whole>
__device__ __forceinline__ void backward_tile(const Flat<Backward<Operand, Kind>>& p, typename Operand::Index tile,
                                              OneSlope<V>& one_slope, Whole whole) {
  const TilePacks<Operand> packs(whole, tile, p.numel);
  const Inputs<Operand> in(p, packs);
  V alpha[Packs<Operand>::kPacks];
  pack_slopes(p, packs, one_slope, alpha);
#pragma unroll
  for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
    backward_pack<false>(p, in, packs, u, true, [&](int) { return Slope<V>(alpha[u]); }, nullptr);
  }
}

// Registers for four blocks on a multiprocessor; for three where packs are looked up by strides, for two where numbers
// are wide, so that nothing is spilled.
template <typename Operand>
constexpr int kFlatResident = sizeof(typename Operand::Index) + sizeof(typename Operand::T) > 8 ? 2
                              : kHasStaticKinds<Operand> || Operand::kWidth == 1                ? 4
                                                                                                : 3;

template <typename Operand, typename Kind>
__global__ void __launch_bounds__(kThreads, kFlatResident<Operand>)
    backward_flat_kernel(const Flat<Backward<Operand, Kind>> p) {
  OneSlope<Wide<typename Operand::T>> slope(p.alpha, 0);
  for_tiles<Operand>(p.whole_tiles, [&](auto tile, auto whole) { backward_tile(p, tile, slope, whole); });
}

}  // namespace

void backward_flat(const BackwardArgs& args, Access access, const Launch& launch) {
  const bool many_slopes = args.shape.channels > 1 && args.alpha.data != nullptr;
  with_operand(args.dtype, args.shape.numel(), access, [&](auto operand) {
    using Operand = typename decltype(operand)::Type;
    with_backward_kind<Operand, Saved::Input, Saved::Output, Saved::Mask>(args, many_slopes, [&](auto kind) {
      using Kind = decltype(kind);
      launch_tiles<Operand, backward_flat_kernel<Operand, Kind>>(
          "backward_flat", Flat<Backward<Operand, Kind>>(args, kind), args.shape.numel(), launch);
    });
  });
}

}  // namespace leaky_ext::cuda
