// Forward: y, and the mask of the negative elements if it is wanted.
#include "../leaky_math.h"
#include "elementwise.cuh"

namespace leaky_ext::cuda {

// Writes the mask bits of the pack at i. Neighbouring lanes combine the bits of their packs to bytes: every thread of
// the warp must call this, and the numbers of a thread and its pack must be equal modulo 8 / kWidth. A shuffle stays
// within 8 neighbouring lanes, so the size of a warp does not matter.
template <int kWidth>
__device__ __forceinline__ void store_mask(uint8_t* mask, uint64_t i, int count, unsigned bits) {
  constexpr int kLanes = 8 / kWidth;
  const int lane = int(threadIdx.x) % kLanes;
  bits <<= lane * kWidth;
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) bits |= __shfl_xor_sync(~0u, bits, step);
  if (lane == 0 && count > 0) mask[i / 8] = uint8_t(bits);
}

template <typename Operand, typename Kind>
struct Forward {
  using OperandType = Operand;
  using Index = typename Operand::Index;
  static constexpr int kFlatBlocks = 4, kColumnBlocks = 3;
  static constexpr int kMultiple = 8;  // neighbouring threads share a byte of the mask

  Operand x, y;
  Index numel;
  Alpha alpha;
  uint8_t* mask;
  Kind kind;  // kind.what: Formula

  Forward(const ForwardArgs& args, Kind kind)
      : x(args.x, args.x_view),
        y(args.y, args.y_view),
        numel(Index(args.shape.numel())),
        alpha(args.formula == Formula::ReLU ? Alpha() : args.alpha),  // unused by ReLU: it may not be readable
        mask(args.mask),
        kind(kind) {}

  template <typename V>
  __device__ __forceinline__ V apply(V value, V slope) const {
    switch (kind.what) {
      case Formula::LeakyReLU:
        return leaky_relu(value, slope);
      case Formula::LeakyReLUSigned:
        return leaky_relu_signed(value, slope);
      case Formula::ReLU:
        return relu(value);
    }
    __builtin_unreachable();
  }

  template <typename Slopes>
  __device__ __forceinline__ void run(Packs<Operand> packs, bool active, Slopes slopes) const {
    constexpr int kPacks = Packs<Operand>::kPacks, kWidth = Operand::kWidth;
    // y may be x: a thread without a column must not read what another writes.
#pragma unroll
    for (int u = 0; u < kPacks; ++u) packs.count[u] = active ? packs.count[u] : 0;
    typename Operand::Raw raw[kPacks];
    load_all(x, packs, raw);
    typename Operand::T* place[kPacks];
    y.places(packs.i, place);
    const auto slope_of = slopes();
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
      Wide<typename Operand::T> values[kWidth], result[kWidth];
      Operand::unpack(raw[u], values);
      unsigned bits = 0;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (negative(values[j])) bits |= 1u << j;
        result[j] = apply(values[j], slope_of(u, j));
      }
      Operand::store(place[u], packs.count[u], result);
      if (kind.mask) store_mask<kWidth>(mask, packs.i[u], packs.count[u], bits);
    }
  }
};

void forward(const ForwardArgs& args, const Launch& launch) {
  const int64_t numel = args.shape.numel();
  if (numel == 0) return;
  const Access access = common_access({{args.x, &args.x_view}, {args.y, &args.y_view}}, args.dtype, numel);
  const bool many_slopes = args.shape.channels > 1 && args.alpha.data != nullptr && args.formula != Formula::ReLU;
  launch_elementwise<Forward, Formula::LeakyReLU, Formula::LeakyReLUSigned, Formula::ReLU>(
      "forward", args, access, args.formula, args.mask != nullptr, many_slopes, launch);
}

}  // namespace leaky_ext::cuda
