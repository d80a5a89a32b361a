// What the forward kernels share: the operands, and y and the mask of one pack.
#pragma once

#include "../leaky_math.h"
#include "columns.cuh"
#include "kinds.cuh"
#include "launch.h"
#include "slope.cuh"

namespace leaky_ext::cuda {

inline bool has_many_slopes(const ForwardArgs& args) {
  return args.shape.channels > 1 && args.alpha.data != nullptr && args.formula != Formula::ReLU;
}

template <typename Operand, typename Kind>
struct Forward {
  using OperandType = Operand;
  using Index = typename Operand::Index;

  Operand x, y;
  Index numel;
  Alpha alpha;
  uint8_t* mask;
  Kind kind;

  Forward(const ForwardArgs& args, Kind kind)
      : x(args.x, args.x_view),
        y(args.y, args.y_view),
        numel(Index(args.shape.numel())),
        alpha(args.formula == Formula::ReLU ? Alpha() : args.alpha),  // unused by ReLU: it may not be readable
        mask(args.mask),
        kind(kind) {}

  template <typename V>
  __device__ __forceinline__ V apply(V value, V a) const {
    switch (kind.formula) {
      case Formula::LeakyReLU:
        return leaky_relu(value, a);
      case Formula::LeakyReLUSigned:
        return leaky_relu_signed(value, a);
      case Formula::ReLU:
        return relu(value);
    }
    __builtin_unreachable();
  }
};

// The lanes of a warp that take part in a shuffle: all. The shuffles below stay within 8 neighbouring lanes, so they do
// not depend on the size of a warp.
constexpr unsigned kAllLanes = ~0u;

// Writes the mask's bits of the pack at i. Neighbouring lanes put their packs' bits together to bytes: every thread of
// the warp must come here, its thread number and its pack's number equal modulo 8 / kWidth.
template <int kWidth>
__device__ __forceinline__ void store_mask(uint8_t* mask, uint64_t i, int count, unsigned bits) {
  constexpr int kLanes = 8 / kWidth;
  const int lane = int(threadIdx.x) % kLanes;
  bits <<= lane * kWidth;
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) bits |= __shfl_xor_sync(kAllLanes, bits, step);
  if (lane == 0 && count > 0) mask[i / 8] = uint8_t(bits);
}

template <typename Operand, typename Kind, typename AlphaOf>
__device__ __forceinline__ void forward_pack(const Forward<Operand, Kind>& p, const typename Operand::Raw& raw,
                                             typename Operand::T* y_place, uint64_t i, int count, AlphaOf alpha_of) {
  constexpr int kWidth = Operand::kWidth;
  Wide<typename Operand::T> x[kWidth], y[kWidth];
  Operand::unpack(raw, x);
  unsigned bits = 0;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (negative(x[j])) bits |= 1u << j;
    y[j] = p.apply(x[j], alpha_of(j));
  }
  Operand::store(y_place, count, y);
  if (p.kind.mask) store_mask<kWidth>(p.mask, i, count, bits);
}

// Calls run with the kind of a call, of a type that fits the operand. kMany: which values of many_slopes there are.
template <typename Operand, bool... kMany, typename Run>
void with_forward_kind(const ForwardArgs& args, Run run) {
  const bool has_mask = args.mask != nullptr, many_slopes = has_many_slopes(args);
  if constexpr (kHasStaticKinds<Operand>) {
    with_one_of<Formula::LeakyReLU, Formula::LeakyReLUSigned, Formula::ReLU>(args.formula, [&](auto formula) {
      constexpr Formula kFormula = decltype(formula)::value;
      with_one_of<false, true>(has_mask, [&](auto mask) {
        constexpr bool kMask = decltype(mask)::value;
        with_one_of<kMany...>(many_slopes, [&](auto many) {
          constexpr bool kManySlopes = decltype(many)::value;
          if constexpr (kFormula != Formula::ReLU || !kManySlopes) run(StaticForward<kFormula, kMask, kManySlopes>());
        });
      });
    });
  } else {
    run(RuntimeForward{args.formula, has_mask, many_slopes});
  }
}

// Each in the file of its name. forward_columns takes packs only.
void forward_flat(const ForwardArgs& args, Access access, const Launch& launch);
void forward_columns(const ForwardArgs& args, Access access, const Launch& launch);

}  // namespace leaky_ext::cuda
