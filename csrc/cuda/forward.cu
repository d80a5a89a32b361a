// y, and where it is wanted the mask of the negative elements.
#include "../leaky_math.h"
#include "columns.cuh"
#include "launch.h"
#include "slope.cuh"

namespace leaky_ext::cuda {
namespace {

template <typename Operand>
struct Forward {
  using Index = typename Operand::Index;

  Operand x, y;
  Index numel, packs;
  Formula formula;
  Alpha alpha;
  uint8_t* mask;

  explicit Forward(const ForwardArgs& args)
      : x(args.x, args.x_view),
        y(args.y, args.y_view),
        numel(Index(args.shape.numel())),
        packs(Index(ceil_div(args.shape.numel(), Operand::kWidth))),
        formula(args.formula),
        alpha(args.alpha),
        mask(args.mask) {
    if (args.formula == Formula::ReLU) alpha = Alpha();  // it may not be there to be read
  }

  template <typename V>
  __device__ __forceinline__ V apply(V value, V a) const {
    switch (formula) {
      case Formula::LeakyReLU:
        return leaky_relu(value, a);
      case Formula::LeakyReLUSigned:
        return leaky_relu_signed(value, a);
      default:
        return relu(value);
    }
  }
};

// The lanes of a warp that take part in a shuffle: all. The shuffles below stay within 8 neighbouring lanes, so they do
// not depend on the size of a warp.
constexpr unsigned kAllLanes = ~0u;

// Writes the mask's bits of the pack at i. Neighbouring lanes put their packs' bits together to bytes: every thread of
// the warp must come here, its thread number and its pack's number equal modulo 8 / Width.
template <int Width, typename Index>
__device__ __forceinline__ void store_mask(uint8_t* mask, Index i, int count, unsigned bits) {
  constexpr int kLanes = 8 / Width;
  const int lane = int(threadIdx.x) % kLanes;
  bits <<= lane * Width;
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) bits |= __shfl_xor_sync(kAllLanes, bits, step);
  if (lane == 0 && count > 0) mask[i / 8] = uint8_t(bits);
}

template <typename Operand, typename AlphaOf>
__device__ __forceinline__ void forward_pack(const Forward<Operand>& p, const typename Operand::Raw& raw,
                                             typename Operand::Index i, int count, AlphaOf alpha_of) {
  const auto x = Operand::unpack(raw);
  Pack<typename Operand::T, Operand::kWidth> y;
  unsigned bits = 0;
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    const auto value = widen(x.v[j]);
    bits |= unsigned(negative(value)) << j;
    y.v[j] = narrow<typename Operand::T>(p.apply(value, alpha_of(j)));
  }
  p.y.store(i, count, y);
  if (p.mask != nullptr) store_mask<Operand::kWidth>(p.mask, i, count, bits);
}

// One slope, or one for each pack.
template <typename Operand>
struct ForwardFlat : Forward<Operand> {
  Channels<typename Operand::Index> channels;
  bool one_slope;

  explicit ForwardFlat(const ForwardArgs& args)
      : Forward<Operand>(args),
        channels(args.shape),
        one_slope(this->alpha.data == nullptr || args.shape.channels == 1) {}
};

template <typename Operand>
__global__ void __launch_bounds__(kThreads, 4) forward_flat(const ForwardFlat<Operand> p) {
  using Index = typename Operand::Index;
  using V = Wide<typename Operand::T>;
  constexpr int kUnroll = kPacksInFlight<Operand::kWidth>, kTile = kThreads * kUnroll;
  const V first_alpha = slope<V>(p.alpha, 0);
  for (Index base = Index(blockIdx.x) * kTile; base < p.packs; base += Index(gridDim.x) * kTile) {
    typename Operand::Raw x[kUnroll];
    Index i[kUnroll];
    int count[kUnroll];
    V alpha[kUnroll];
    packs_of_tile<Operand>(base, p.numel, i, count);
    load_all(p.x, i, count, x);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      alpha[u] = p.one_slope || count[u] == 0 ? first_alpha : slope<V>(p.alpha, int64_t(p.channels.of(i[u])));
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) forward_pack(p, x[u], i[u], count[u], [&](int) { return alpha[u]; });
  }
}

template <typename Operand>
struct ForwardColumns : Forward<Operand> {
  Channels<typename Operand::Index> channels;
  Columns<typename Operand::Index> columns;

  ForwardColumns(const ForwardArgs& args, const Columns<typename Operand::Index>& c)
      : Forward<Operand>(args), channels(args.shape), columns(c) {}
};

template <typename Operand>
__global__ void __launch_bounds__(kThreads, 3) forward_columns(const ForwardColumns<Operand> p) {
  using Index = typename Operand::Index;
  using V = Wide<typename Operand::T>;
  constexpr int kUnroll = kPacksInFlight<Operand::kWidth>;
  const Column<Index> column(p.columns);
  V alpha[Operand::kWidth];
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    const Index i = column.number * Operand::kWidth + j;
    alpha[j] = column.active && i < p.numel ? slope<V>(p.alpha, int64_t(p.channels.of(i))) : V(0);
  }
  const Index step = p.columns.rows * p.columns.groups;
  for (Index first = column.row * p.columns.groups; first < p.columns.periods; first += step * kUnroll) {
    typename Operand::Raw x[kUnroll];
    Index i[kUnroll];
    int count[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const Index period = first + u * step + column.group;
      i[u] = (period * p.columns.period + column.number) * Operand::kWidth;
      count[u] = column.active && period < p.columns.periods ? elements_at<Operand>(i[u], p.numel) : 0;
    }
    load_all(p.x, i, count, x);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) forward_pack(p, x[u], i[u], count[u], [&](int j) { return alpha[j]; });
  }
}

template <typename T, typename Index>
void launch_forward(const ForwardArgs& args, const Launch& launch) {
  using Packed = Dense<T, Index>;
  using Single = Strided<T, Index>;
  const int64_t numel = args.shape.numel();
  const Shape& shape = args.shape;
  const bool one_slope = shape.channels == 1 || args.alpha.data == nullptr || args.formula == Formula::ReLU;
  if (!can_pack(args.x, args.x_view) || !can_pack(args.y, args.y_view)) {
    launch_kernel("forward_flat", forward_flat<Single>, elementwise_blocks<1>(numel, launch), ForwardFlat<Single>(args),
                  launch);
  } else if (one_slope || shape.inner % Packed::kWidth == 0) {
    launch_kernel("forward_flat", forward_flat<Packed>, elementwise_blocks<Packed::kWidth>(numel, launch),
                  ForwardFlat<Packed>(args), launch);
  } else {
    const Columns<Index> columns(make_columns(numel, shape.channels * shape.inner, Packed::kWidth, 8,
                                              int64_t(launch.multiprocessors) * kBlocksElementwise, numel));
    launch_kernel("forward_columns", forward_columns<Packed>, columns.blocks(), ForwardColumns<Packed>(args, columns),
                  launch);
  }
}

}  // namespace

void forward(const ForwardArgs& args, const Launch& launch) {
  if (args.shape.numel() == 0) return;
  with_type(args.dtype, [&](auto type) {
    with_index(args.shape.numel(), [&](auto index) { launch_forward<decltype(type), decltype(index)>(args, launch); });
  });
}

}  // namespace leaky_ext::cuda
