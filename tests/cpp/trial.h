// Calls of forward and backward with arguments drawn at random, compared with the oracle: CPU kernels, and CUDA kernels
// on the host.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "case.h"
#include "oracle.h"

namespace leaky_ext::test {

inline int failures = 0;

inline void expect(bool good, const std::string& what, const std::string& call, int64_t where = 0) {
  if (good) return;
  if (++failures <= 20) std::printf("FAILED %s at %lld: %s\n", what.c_str(), (long long)where, call.c_str());
}

// What is tested. Each of `again` must give the same bits of grad_alpha as `backward`.
struct Kernels {
  const char* name;
  std::function<void(const ForwardArgs&)> forward;
  std::function<void(const BackwardArgs&)> backward;
  std::vector<std::function<void(const BackwardArgs&)>> again;
  double tolerance;  // of grad_alpha, relative to sum|grad * x|; float64: 1e-13
};

// The number of a trial decides the dtype, and the formula or what was saved; all else is drawn.
constexpr int kCombinations = 48;

inline DType dtype_of_trial(int number) { return DType(number % 4); }

inline std::string describe(const char* name, DType dtype, const Shape& s, const Alpha& a, const StridedView& one,
                            const StridedView& two) {
  char text[256];
  std::snprintf(text, sizeof text, "%s dtype %d shape (%lld, %lld, %lld) alpha dtype %d%s strided %d %d", name,
                int(dtype), (long long)s.outer, (long long)s.channels, (long long)s.inner, int(a.dtype),
                a.data ? "" : " (value)", one.ndim, two.ndim);
  return text;
}

// A mask between guards; at times it is not aligned.
struct Mask {
  static constexpr uint8_t kGuard = 0xa5;
  std::vector<uint8_t> bytes;
  size_t start;
  Mask(int64_t numel, size_t start_) : bytes(start_ + size_t(numel + 7) / 8 + 1, kGuard), start(start_) {}
  uint8_t* data() { return bytes.data() + start; }
};

inline void try_forward(Random& random, int number, const Shape& shape, const std::vector<Kernels>& all) {
  static constexpr Formula kFormulas[] = {Formula::LeakyReLU, Formula::LeakyReLUSigned, Formula::ReLU};
  ForwardArgs args;
  args.dtype = dtype_of_trial(number);
  args.formula = kFormulas[number / 4 % 3];
  args.shape = shape;
  const int64_t numel = shape.numel();
  const bool in_place = random.one_in(3), with_mask = random.one_in(2);
  const Operand x = any_operand(random, args.dtype, shape, random.one_in(3), !in_place);
  Operand filled{x.buffer.copy(), x.view};
  fill(random, filled.buffer, x.view, numel, random.one_in(2));
  const Slopes slopes = any_slopes(random, shape, false, true);
  args.x = filled.buffer.data();
  args.x_view = x.view;
  args.alpha = slopes.alpha;
  if (in_place) args.y_view = x.view;

  const Buffer blank(args.dtype, numel, random.one_in(4) ? random.below(41) : 0);
  Buffer expected = in_place ? filled.buffer.copy() : blank.copy();
  Mask expected_mask(numel, random.one_in(3) ? 1 : 16);
  const Mask blank_mask = expected_mask;
  oracle_forward(args, expected, with_mask ? expected_mask.data() : nullptr);
  const std::string call = describe("forward", args.dtype, shape, args.alpha, args.x_view, args.y_view);
  for (const Kernels& kernels : all) {
    const Buffer y = in_place ? filled.buffer.copy() : blank.copy();
    Mask mask = blank_mask;
    if (in_place) args.x = y.data();
    args.y = y.data();
    args.mask = with_mask ? mask.data() : nullptr;
    kernels.forward(args);
    const int64_t where = y.differs(expected);
    expect(where == Buffer::kSame, std::string("y, ") + kernels.name, call, where);
    expect(mask.bytes == expected_mask.bytes, std::string("mask, ") + kernels.name, call);
  }
}

// Whether `found` is the sum, but for the errors that are allowed and the rounding to alpha's type.
inline bool close(double found, const Sum& sum, double tolerance, DType alpha_dtype) {
  const double exact = double(sum.value);
  if (std::isnan(exact)) return std::isnan(found);
  if (std::isinf(exact)) return found == exact;
  const long double bound = tolerance * sum.magnitude;
  return found >= round_to(alpha_dtype, double(sum.value - bound)) &&
         found <= round_to(alpha_dtype, double(sum.value + bound));
}

inline void try_backward(Random& random, int number, const Shape& shape, const std::vector<Kernels>& all) {
  static constexpr Saved kKinds[] = {Saved::Input, Saved::Output, Saved::OutputAndMask, Saved::Mask};
  BackwardArgs args;
  args.dtype = dtype_of_trial(number);
  args.kind = kKinds[number / 4 % 4];
  args.shape = shape;
  const int64_t numel = shape.numel();
  const bool special = random.one_in(3);
  const bool needs_alpha = args.kind != Saved::Mask && !random.one_in(3);
  const bool needs_x = !needs_alpha || !random.one_in(4);
  const Slopes slopes = any_slopes(random, shape, args.kind == Saved::Output, !needs_alpha);
  args.alpha = slopes.alpha;

  Operand grad = any_operand(random, args.dtype, shape, random.one_in(3), true);
  fill(random, grad.buffer, grad.view, numel, special && !needs_alpha);
  Operand saved = any_operand(random, args.dtype, shape, random.one_in(4), false);
  fill(random, saved.buffer, saved.view, numel, special);
  Mask mask(numel, random.one_in(3) ? 1 : 16);
  if (args.kind != Saved::Input) {  // y takes the place of x
    ForwardArgs forward;
    forward.dtype = args.dtype;
    forward.shape = shape;
    forward.x = saved.buffer.data();
    forward.x_view = forward.y_view = saved.view;
    forward.alpha = args.alpha;
    forward.formula = Formula::LeakyReLUSigned;
    oracle_forward(forward, saved.buffer, mask.data());
  }
  if (numel > 0 && random.one_in(3)) args.output_view = permutation(shape);  // any bits will do for the mask
  args.grad = grad.buffer.data();
  args.grad_view = grad.view;
  if (args.kind != Saved::Mask) {
    args.saved = saved.buffer.data();
    args.saved_view = saved.view;
  }
  if (args.kind == Saved::OutputAndMask || args.kind == Saved::Mask) args.mask = mask.data();

  const Buffer blank(args.dtype, numel);
  args.grad_alpha_dtype = any_dtype(random);
  const Buffer blank_alpha(args.grad_alpha_dtype, shape.channels);
  Buffer expected = blank.copy();
  std::vector<Sum> sums(size_t(shape.channels));
  oracle_backward(args, expected, needs_alpha ? sums.data() : nullptr);
  std::string call = describe("backward", args.dtype, shape, args.alpha, args.grad_view, args.saved_view);
  if (!args.output_view.dense()) call += " permuted";
  call += " kind " + std::to_string(int(args.kind)) + " to dtype " + std::to_string(int(args.grad_alpha_dtype));
  for (const Kernels& kernels : all) {
    const Buffer grad_x = blank.copy(), grad_alpha = blank_alpha.copy();
    args.grad_x = needs_x ? grad_x.data() : nullptr;
    args.grad_alpha = needs_alpha ? grad_alpha.data() : nullptr;
    kernels.backward(args);
    int64_t where = grad_x.differs(needs_x ? expected : blank);
    expect(where == Buffer::kSame, std::string("grad_x, ") + kernels.name, call, where);
    if (!needs_alpha) continue;
    Buffer around = grad_alpha.copy();  // but for what was to be written, nothing was
    for (int64_t c = 0; c < shape.channels; ++c) {
      const double tolerance = args.dtype == DType::Float64 ? 1e-13 : kernels.tolerance;
      expect(close(grad_alpha.at(c), sums[size_t(c)], tolerance, args.grad_alpha_dtype),
             std::string("grad_alpha, ") + kernels.name, call, c);
      around.set(c, blank_alpha.at(c));
    }
    where = around.differs(blank_alpha);
    expect(where == Buffer::kSame, std::string("outside grad_alpha, ") + kernels.name, call, where);
    for (const auto& once_more : kernels.again) {
      const Buffer same = blank_alpha.copy();
      args.grad_alpha = same.data();
      once_more(args);
      where = grad_alpha.differs(same);
      expect(where == Buffer::kSame, std::string("grad_alpha, once more, ") + kernels.name, call, where);
    }
  }
}

}  // namespace leaky_ext::test
