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
      : grad(args.grad, args.grad_view),
        saved(args.saved, args.saved_view),
        grad_x(args.grad_x, StridedView()),
        numel(Index(args.shape.numel())),
        alpha(args.alpha),
        mask(args.kind >= Saved::OutputAndMask ? args.mask : nullptr),
        kind(args.kind),
        writes_grad_x(args.grad_x != nullptr) {}
};

// What is read for the packs at i[0], i[1], ...
template <typename Operand, int kPacks>
struct Inputs {
  typename Operand::Raw grad[kPacks], saved[kPacks];
  unsigned bits[kPacks];  // of the mask

  __device__ __forceinline__ Inputs(const Backward<Operand>& p, const typename Operand::Index (&i)[kPacks],
                                    const int (&count)[kPacks])
      : saved(), bits() {
    load_all(p.grad, i, count, grad);
    if (p.kind != Saved::Mask) load_all(p.saved, i, count, saved);
    if (p.mask == nullptr) return;
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
      if (count[u] > 0) bits[u] = unsigned(p.mask[i[u] / 8]) >> (i[u] % 8);
    }
  }
};

// Bit j: whether x was negative in element j of a pack.
template <typename Operand, typename Packed>
__device__ __forceinline__ unsigned negative_bits(const Backward<Operand>& p, const Packed& saved, unsigned mask_bits) {
  if (p.kind >= Saved::OutputAndMask) return mask_bits;
  unsigned bits = 0;
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    const auto value = widen(saved.v[j]);
    const bool of_input = negative(value), of_output = signbit(value) || isnan(value);
    bits |= unsigned(p.kind == Saved::Input ? of_input : of_output) << j;
  }
  return bits;
}

// Writes grad_x of pack u, if it is wanted; what the pack's elements add to d(alpha) goes to `products`, if that is
// not null.
template <typename Operand, int kPacks, typename AlphaOf, typename V>
__device__ __forceinline__ void backward_pack(const Backward<Operand>& p, const Inputs<Operand, kPacks>& in, int u,
                                              typename Operand::Index i, int count, AlphaOf alpha_of, V* products) {
  Pack<typename Operand::T, Operand::kWidth> result;
  const auto grads = Operand::unpack(in.grad[u]), saveds = Operand::unpack(in.saved[u]);
  const unsigned bits = negative_bits(p, saveds, in.bits[u]);
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    const V grad = widen(grads.v[j]), saved = widen(saveds.v[j]), alpha = alpha_of(j);
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
