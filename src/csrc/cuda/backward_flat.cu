// grad_x alone, where there is one slope, or one for each pack.
#include "backward.cuh"
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand>
struct BackwardFlat : Backward<Operand> {
  using Index = typename Operand::Index;

  Index packs;
  Channels<Index> channels;
  bool one_slope;

  explicit BackwardFlat(const BackwardArgs& args)
      : Backward<Operand>(args),
        packs(Index(ceil_div(args.shape.numel(), Operand::kWidth))),
        channels(args.shape),
        one_slope(args.alpha.data == nullptr || args.shape.channels == 1) {}
};

template <typename Operand>
__global__ void __launch_bounds__(kThreads, 4) backward_flat_kernel(const BackwardFlat<Operand> p) {
  using Index = typename Operand::Index;
  using V = Wide<typename Operand::T>;
  constexpr int kUnroll = kPacksInFlight<Operand::kWidth>, kTile = kThreads * kUnroll;
  const V first_alpha = slope<V>(p.alpha, 0);
  for (Index base = Index(blockIdx.x) * kTile; base < p.packs; base += Index(gridDim.x) * kTile) {
    Index i[kUnroll];
    int count[kUnroll];
    V alpha[kUnroll];
    packs_of_tile<Operand>(base, p.numel, i, count);
    const Inputs<Operand, kUnroll> in(p, i, count);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      alpha[u] = p.one_slope || count[u] == 0 ? first_alpha : slope<V>(p.alpha, int64_t(p.channels.of(i[u])));
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      backward_pack(p, in, u, i[u], count[u], [&](int) { return alpha[u]; }, static_cast<V*>(nullptr));
    }
  }
}

template <typename Operand>
void launch_flat(const BackwardArgs& args, const Launch& launch) {
  launch_kernel("backward_flat", backward_flat_kernel<Operand>,
                elementwise_blocks<Operand::kWidth>(args.shape.numel(), launch), BackwardFlat<Operand>(args), launch);
}

}  // namespace

void backward_flat(const BackwardArgs& args, bool packed, const Launch& launch) {
  with_type(args.dtype, [&](auto type) {
    with_index(args.shape.numel(), [&](auto index) {
      using T = decltype(type);
      using Index = decltype(index);
      packed ? launch_flat<Dense<T, Index>>(args, launch) : launch_flat<Strided<T, Index>>(args, launch);
    });
  });
}

}  // namespace leaky_ext::cuda
