// What a kernel does besides its arithmetic: which formula, what was saved, one slope or many.
//
// For the most common operands (dense packs, 32-bit indices, elements of up to 4 bytes) the kind is a template
// argument: there is a kernel for each kind, without tests per element. For all other operands one kernel tests at run
// time, so that the binary stays small. Both types of kinds have the same members, so a kernel is written once.
#pragma once

#include <stdexcept>
#include <type_traits>

#include "pack.cuh"

namespace leaky_ext::cuda {

template <typename Operand>
constexpr bool kHasStaticKinds =
    std::is_same_v<Operand, Dense<typename Operand::T, uint32_t>> && sizeof(typename Operand::T) <= 4;

template <auto what_, bool mask_, bool many_slopes_>
struct StaticKind {
  static constexpr auto what = what_;  // forward: Formula; backward: Saved
  static constexpr bool mask = mask_;  // forward: the mask is written
  static constexpr bool many_slopes = many_slopes_;
};

template <typename What>
struct RuntimeKind {
  What what;
  bool many_slopes, mask;
};

// Calls body with the one of kValues that equals value, or with value itself, as a std::integral_constant.
template <auto... kValues, typename T, typename Body>
void with_one_of(T value, Body body) {
  if constexpr (std::is_class_v<T>) {
    body(value);
  } else {
    const bool found = ((value == kValues && (body(std::integral_constant<T, kValues>()), true)) || ...);
    if (!found) throw std::logic_error("leaky_ext: no CUDA kernel of this kind");
  }
}

constexpr bool has_slopes(Formula formula) { return formula != Formula::ReLU; }
constexpr bool has_slopes(Saved) { return true; }

// Calls run with a StaticKind or RuntimeKind, as the operand requires. kWhat: the values of `what` that have kernels.
// mask and many_slopes are bool, or constants if only one value has kernels.
template <typename Operand, auto... kWhat, typename What, typename Mask, typename ManySlopes, typename Run>
void with_kind(What what, Mask mask, ManySlopes many_slopes, Run run) {
  if constexpr (!kHasStaticKinds<Operand>) {
    run(RuntimeKind<What>{what, many_slopes, mask});
  } else {
    with_one_of<kWhat...>(what, [&](auto what) {
      with_one_of<false, true>(mask, [&](auto mask) {
        with_one_of<false, true>(many_slopes, [&](auto many) {
          using Kind = StaticKind<decltype(what)::value, decltype(mask)::value, decltype(many)::value>;
          if constexpr (!Kind::many_slopes || has_slopes(Kind::what)) run(Kind());
        });
      });
    });
  }
}

}  // namespace leaky_ext::cuda
