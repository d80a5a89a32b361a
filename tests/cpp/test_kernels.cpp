// The CPU kernels against the oracle: every dtype, formula, layout and kind of saved tensor. LEAKY_EXT_CPU chooses the
// instruction set; no torch, no Python.
#include "support.h"
#include "trial.h"

namespace leaky_ext::test {
namespace {

void forward(const ForwardArgs& args) { cpu::forward(args, parallel_for); }

std::function<void(const BackwardArgs&)> backward(int with_threads) {
  return [=](const BackwardArgs& args) {
    threads = with_threads;
    cpu::backward(args, parallel_for);
    threads = 2;
  };
}

// Sizes around those of vectors, runs, chunks and tasks; then channels, and what splits them.
constexpr int64_t kFlat[] = {0,  1,  2,  3,   7,   9,    15,   16,   17,   31,   33,
                             63, 64, 65, 255, 257, 1000, 2047, 2049, 4095, 4097, 100003};
constexpr Shape kChannels[] = {{3, 7, 1},    {5, 1, 33}, {2, 3, 40},   {2, 3, 70000}, {700, 130, 1},
                               {1, 5000, 9}, {0, 4, 3},  {1, 4096, 1}, {4, 6, 500},   {2, 12, 5}};

void check_shape(Random& random, const Shape& shape, int trials) {
  const std::vector<Kernels> kernels{{"CPU", forward, backward(2), {backward(1), backward(3), backward(7)}, 2e-7}};
  for (int number = 0; number < trials; ++number) {
    try_forward(random, number, shape, kernels);
    try_backward(random, number, shape, kernels);
  }
}

// Every float16 and bfloat16 pattern, as x and as gradient, under slopes that reach subnormal results, overflow and
// NaN. The slope NaN has a payload, all bits set: a rounding that adds to it carries into the sign.
void check_every_pattern(DType dtype) {
  constexpr int64_t n = 65536;
  const Buffer x(dtype, n), y(dtype, n), grad_x(dtype, n);
  Buffer minus(dtype, n), expected = y.copy();
  for (int64_t i = 0; i < n; ++i) {
    static_cast<uint16_t*>(x.data())[i] = uint16_t(i);
    minus.set(i, -1);
  }
  Mask mask(n, 16), expected_mask(n, 16);
  float nan;
  std::memset(&nan, 0xff, sizeof nan);
  for (const float slope : {0.01f, -0.3f, 1.0f, 0x1p-120f, 0x1p-20f, 3e38f, INFINITY, 0.0f, nan}) {
    for (const Formula formula : {Formula::LeakyReLU, Formula::ReLU}) {
      for (const bool per_element : {false, true}) {
        const std::string call =
            "every pattern, dtype " + std::to_string(int(dtype)) + " slope " + std::to_string(slope);
        const std::vector<float> slopes(per_element ? n : 1, slope);
        ForwardArgs forward;
        forward.formula = formula;
        forward.dtype = dtype;
        forward.shape = {1, int64_t(slopes.size()), n / int64_t(slopes.size())};
        forward.x = x.data();
        forward.y = y.data();
        forward.mask = mask.data();
        forward.alpha = {slopes.data(), DType::Float32};
        cpu::forward(forward, parallel_for);
        oracle_forward(forward, expected, expected_mask.data());
        int64_t where = y.differs(expected);
        expect(where == Buffer::kSame, "y", call, where);
        expect(mask.bytes == expected_mask.bytes, "mask", call);
        BackwardArgs backward;  // the gradient runs over every pattern; x is negative everywhere
        backward.dtype = dtype;
        backward.shape = forward.shape;
        backward.grad = x.data();
        backward.saved = minus.data();
        backward.alpha = forward.alpha;
        backward.grad_x = grad_x.data();
        cpu::backward(backward, parallel_for);
        oracle_backward(backward, expected, nullptr);
        where = grad_x.differs(expected);
        expect(where == Buffer::kSame, "grad_x", call, where);
      }
    }
  }
}

void check_everything() {
  threads = 2;
  check_every_pattern(DType::Float16);
  check_every_pattern(DType::BFloat16);
  Random random(0);
  for (const int64_t n : kFlat) check_shape(random, {1, 1, n}, n < 5000 ? kCombinations : 12);
  for (const Shape& shape : kChannels) check_shape(random, shape, shape.numel() < 5000 ? kCombinations : 12);
  for (int number = 0; number < 20; ++number) check_shape(random, any_shape(random, 1), 12);
}

}  // namespace
}  // namespace leaky_ext::test

int main() { return leaky_ext::test::run("kernels", leaky_ext::test::check_everything); }
