// What a kernel does besides its arithmetic: which formula, what was saved, one slope or many.
//
// Where speed is decided (whole packs as they lie, 32-bit indices, elements of up to 4 bytes), this is part of the
// kernel's type: one kernel for each kind, and no test per element. Elsewhere one kernel tests at run time, so that the
// binary stays small. Both kinds have the same members, so a kernel is written once.
#pragma once

#include <stdexcept>
#include <type_traits>

#include "pack.cuh"

namespace leaky_ext::cuda {

template <typename Operand>
constexpr bool kHasStaticKinds =
    std::is_same_v<Operand, Dense<typename Operand::T, uint32_t>> && sizeof(typename Operand::T) <= 4;

template <Formula formula_, bool mask_, bool many_slopes_>
struct StaticForward {
  static constexpr Formula formula = formula_;
  static constexpr bool mask = mask_;  // whether the mask is written
  static constexpr bool many_slopes = many_slopes_;
};

struct RuntimeForward {
  Formula formula;
  bool mask, many_slopes;
};

template <Saved saved_, bool many_slopes_>
struct StaticBackward {
  static constexpr Saved saved = saved_;
  static constexpr bool many_slopes = many_slopes_;
};

struct RuntimeBackward {
  Saved saved;
  bool many_slopes;
};

// Calls body with the one of kValues that equals value, as a std::integral_constant.
template <auto... kValues, typename T, typename Body>
void with_one_of(T value, Body body) {
  const bool found = ((value == kValues && (body(std::integral_constant<T, kValues>()), true)) || ...);
  if (!found) throw std::logic_error("leaky_ext: no CUDA kernel of this kind");
}

}  // namespace leaky_ext::cuda
