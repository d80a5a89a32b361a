// Backward without d(alpha): grad_x alone.
#include "backward.cuh"
#include "elementwise.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {

template <typename Operand, typename Kind>
struct GradX : Backward<Operand, Kind> {
  // Four blocks are resident; three if packs are found by strides, two if numbers are wide: no register is spilled.
  static constexpr int kFlatBlocks = sizeof(typename Operand::Index) + sizeof(typename Operand::T) > 8 ? 2
                                     : kHasStaticKinds<Operand> || Operand::kWidth == 1                ? 4
                                                                                                       : 3;
  static constexpr int kColumnBlocks = 2, kMultiple = Operand::kWidth;

  using Backward<Operand, Kind>::Backward;

  template <typename Slopes>
  __device__ __forceinline__ void run(const Packs<Operand>& packs, bool active, Slopes slopes) const {
    const Inputs<Operand> in(*this, packs);
    const auto slope_of = slopes();
#pragma unroll
    for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
      backward_pack(*this, in, packs, u, active, [&](int j) { return slope_of(u, j); }, nullptr);
    }
  }
};

void backward_without_sums(BackwardArgs args, const Launch& launch) {
  if (args.kind == Saved::OutputAndMask) args.kind = Saved::Mask;  // only d(alpha) needs y
  if (args.kind == Saved::Mask) {
    args.saved = nullptr;
    args.saved_view = StridedView();
  }
  const bool many_slopes = args.shape.channels > 1 && args.alpha.data != nullptr;
  launch_elementwise<GradX, Saved::Input, Saved::Output, Saved::Mask>("backward", args, operand_access(args), args.kind,
                                                                      std::false_type(), many_slopes, launch);
}

}  // namespace leaky_ext::cuda
