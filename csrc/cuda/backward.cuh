// What the backward kernels share: the operands, and the gradients of one pack.
#pragma once

#include "../leaky_math.h"
#include "kinds.cuh"
#include "launch.h"
#include "slope.cuh"

namespace leaky_ext::cuda {

inline Access operand_access(const BackwardArgs& args) {
  return common_access({{args.grad, &args.grad_view}, {args.saved, &args.saved_view}, {args.grad_x, &args.output_view}},
                       args.dtype, args.shape.numel());
}

template <typename Operand, typename Kind>
struct Backward {
  using OperandType = Operand;
  using Index = typename Operand::Index;

  Operand grad, saved, output;  // output: grad_x, with null data if it is not needed; its view also locates mask bits
  Index numel;
  Alpha alpha;
  const uint8_t* mask;
  Kind kind;  // kind.what: Saved

  Backward(const BackwardArgs& args, Kind kind)
      : grad(args.grad, args.grad_view),
        saved(args.saved, args.saved_view),
        output(args.grad_x, args.output_view),
        numel(Index(args.shape.numel())),
        alpha(args.alpha),
        mask(args.mask),
        kind(kind) {}

  __device__ __forceinline__ bool has_mask() const {
    return kind.what == Saved::OutputAndMask || kind.what == Saved::Mask;
  }
};

// What a thread reads for its packs.
template <typename Operand>
struct Inputs {
  static constexpr int kPacks = Packs<Operand>::kPacks;

  typename Operand::Raw grad[kPacks], saved[kPacks];
  int64_t offset[kPacks];  // in the output
  unsigned mask[kPacks];   // the byte that holds the pack's bits

  template <typename Kind>
  __device__ __forceinline__ Inputs(const Backward<Operand, Kind>& p, const Packs<Operand>& packs) : saved(), mask() {
    load_all(p.grad, packs, grad);
    if (p.kind.what != Saved::Mask) load_all(p.saved, packs, saved);
    p.output.view.offsets(packs.i, offset);
    if (!p.has_mask()) return;
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
      if (packs.count[u] > 0) mask[u] = p.mask[uint64_t(offset[u]) / 8];
    }
  }
};

// Returns true if x was negative: y's sign bit is set, or y is NaN. As an unsigned number, y is larger than infinity.
__device__ __forceinline__ bool negative_output(float y) { return from_bits<uint32_t>(y) > 0x7f800000u; }
__device__ __forceinline__ bool negative_output(double y) { return from_bits<uint64_t>(y) > 0x7ff0000000000000u; }

// Writes grad_x of pack u if it is needed, and adds the contribution of element j to d(alpha) to sum_of(j). slope_of(j)
// returns the Slope of element j. If sum_of is null, grad_x is needed, and slope_of(j) returns the value of the slope.
template <typename Operand, typename Kind, typename SlopeOf, typename SumOf>
__device__ __forceinline__ void backward_pack(const Backward<Operand, Kind>& p, const Inputs<Operand>& in,
                                              const Packs<Operand>& packs, int u, bool active, SlopeOf slope_of,
                                              SumOf sum_of) {
  constexpr int kWidth = Operand::kWidth;
  constexpr bool kSums = !std::is_null_pointer_v<SumOf>;
  using V = Wide<typename Operand::T>;
  V grad[kWidth], saved[kWidth], result[kWidth];
  Operand::unpack(in.grad[u], grad);
  Operand::unpack(in.saved[u], saved);
  const unsigned bits = in.mask[u] >> (unsigned(in.offset[u]) % 8);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const bool is_negative = p.has_mask()                  ? (bits >> j & 1) != 0
                             : p.kind.what == Saved::Input ? negative(saved[j])
                                                           : negative_output(saved[j]);
    if constexpr (kSums) {
      const Slope<V> slope = slope_of(j);
      result[j] = grad_x(is_negative, grad[j], slope.value);
      const V x = p.kind.what == Saved::Input ? saved[j] : slope.input_from_output(saved[j]);
      V& sum = sum_of(j);  // adds grad_alpha of leaky_math.h, with one rounding
      if (is_negative) sum = fma(grad[j], x, sum);
    } else {
      result[j] = grad_x(is_negative, grad[j], slope_of(j));
    }
  }
  if (!kSums || p.output.data != nullptr)
    Operand::store(p.output.data + in.offset[u], active ? packs.count[u] : 0, result);
}

}  // namespace leaky_ext::cuda
