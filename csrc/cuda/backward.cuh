// What the backward kernels share: the operands, and the gradients of one pack.
#pragma once

#include "../leaky_math.h"
#include "launch.h"
#include "slope.cuh"

namespace leaky_ext::cuda {

template <typename Operand>
struct Backward {
  using Index = typename Operand::Index;

  Operand grad, saved, grad_x;
  Index numel;
  Alpha alpha;
  const uint8_t* mask;
  Saved kind;
  bool writes_grad_x;

  explicit Backward(const BackwardArgs& args)
      : grad(args.grad, args.grad_walk),
        saved(args.saved, args.saved_walk),
        grad_x(args.grad_x, Walk()),
        numel(Index(args.shape.numel())),
        alpha(args.alpha),
        mask(args.kind >= Saved::OutputAndMask ? args.mask : nullptr),
        kind(args.kind),
        writes_grad_x(args.grad_x != nullptr) {}
};

// What is read of one pack.
template <typename Operand>
struct Inputs {
  Pack<typename Operand::T, Operand::kWidth> grad, saved;
  unsigned bits;  // of the mask

  Inputs() = default;
  __device__ __forceinline__ Inputs(const Backward<Operand>& p, typename Operand::Index i, int count)
      : grad(p.grad.load(i, count)), saved(), bits(0) {
    if (p.kind != Saved::Mask) saved = p.saved.load(i, count);
    if (p.mask != nullptr && count > 0) bits = unsigned(p.mask[i / 8]) >> (i % 8);
  }
};

// Bit j: whether x was negative in element j of a pack.
template <typename Operand>
__device__ __forceinline__ unsigned negative_bits(const Backward<Operand>& p, const Inputs<Operand>& in) {
  if (p.kind >= Saved::OutputAndMask) return in.bits;
  unsigned bits = 0;
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    const auto saved = widen(in.saved.v[j]);
    const bool of_input = negative(saved), of_output = signbit(saved) || isnan(saved);
    bits |= unsigned(p.kind == Saved::Input ? of_input : of_output) << j;
  }
  return bits;
}

// Writes grad_x of one pack, if it is wanted; what the pack's elements add to d(alpha) goes to `products`, if that is
// not null.
template <typename Operand, typename AlphaOf, typename V>
__device__ __forceinline__ void backward_pack(const Backward<Operand>& p, const Inputs<Operand>& in,
                                              typename Operand::Index i, int count, AlphaOf alpha_of, V* products) {
  Pack<typename Operand::T, Operand::kWidth> result;
  const unsigned bits = negative_bits(p, in);
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    const V grad = widen(in.grad.v[j]), saved = widen(in.saved.v[j]), alpha = alpha_of(j);
    const bool is_negative = bits >> j & 1;
    result.v[j] = narrow<typename Operand::T>(grad_x(is_negative, grad, alpha));
    if (products != nullptr) {
      const V x = p.kind == Saved::Input ? saved : input_from_output(is_negative, saved, alpha);
      products[j] = grad_alpha(is_negative, grad, x);
    }
  }
  if (p.writes_grad_x) p.grad_x.store(i, count, result);
}

}  // namespace leaky_ext::cuda
