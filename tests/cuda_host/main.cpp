// Runs the CUDA kernels on the host and compares them with the oracle, and with the CPU kernels where LEAKY_COMPARE_CPU
// says that they are linked.
//
//   runner CASES [SEED [SCALE]]      SCALE makes the larger shapes larger
#include <cstdio>
#include <string>
#include <vector>

#include "case.h"
#include "oracle.h"

using namespace leaky_ext;

namespace {

int failures = 0;

void expect(bool good, const char* what, const std::string& description, int64_t where = 0) {
  if (good) return;
  if (++failures <= 10) std::printf("FAILED %s at %lld: %s\n", what, (long long)where, description.c_str());
}

std::string describe(const char* name, DType dtype, const Shape& s, const Alpha& a, const StridedView& one,
                     const StridedView& two) {
  char text[256];
  std::snprintf(text, sizeof text, "%s dtype %d shape (%lld, %lld, %lld) alpha dtype %d%s strided %d %d", name,
                int(dtype), (long long)s.outer, (long long)s.channels, (long long)s.inner, int(a.dtype),
                a.data ? "" : " (value)", one.ndim, two.ndim);
  return text;
}

#ifdef LEAKY_COMPARE_CPU
void serial(int64_t tasks, int64_t, void* context, cpu::Body body) {
  if (tasks > 0) body(context, 0, tasks);
}
#endif

void try_forward(Random& random, int64_t scale, const cuda::Launch& launch) {
  ForwardArgs args;
  args.formula = random.pick({Formula::LeakyReLU, Formula::LeakyReLUSigned, Formula::ReLU});
  args.dtype = any_dtype(random);
  args.shape = any_shape(random, scale);
  const int64_t numel = args.shape.numel();
  const bool in_place = random.one_in(3);
  Operand x = any_operand(random, args.dtype, args.shape, random.one_in(3), !in_place);
  fill(random, x.buffer, x.view, numel, random.one_in(2));
  const Slopes slopes = any_slopes(random, args.shape, false, true);
  args.x = x.buffer.data();
  args.x_view = x.view;
  args.alpha = slopes.alpha;
  const size_t mask_bytes = size_t(numel + 7) / 8;
  std::vector<uint8_t> mask(mask_bytes, 0xa5), expected_mask(mask_bytes);
  const bool with_mask = random.one_in(2);

  Buffer y = in_place ? x.buffer.copy() : Buffer(args.dtype, numel, random.one_in(4) ? random.below(9) : 0);
  if (in_place) args.y_view = x.view;
  Buffer expected = y.copy(), from_cpu = y.copy();
  oracle_forward(args, expected, with_mask ? expected_mask.data() : nullptr);
  if (in_place) args.x = y.data();
  args.y = y.data();
  args.mask = with_mask ? mask.data() : nullptr;
  const std::string text = describe("forward", args.dtype, args.shape, args.alpha, args.x_view, args.y_view);
  cuda::forward(args, launch);
  int64_t where = y.differs(expected);
  expect(where < 0, "y", text, where);
  if (with_mask) expect(mask == expected_mask, "mask", text);
#ifdef LEAKY_COMPARE_CPU
  if (in_place) args.x = from_cpu.data();
  args.y = from_cpu.data();
  cpu::forward(args, serial);
  where = y.differs(from_cpu);
  expect(where < 0, "y, of the CPU kernels,", text, where);
  if (with_mask) expect(mask == expected_mask, "mask, of the CPU kernels,", text);
#endif
}

// Whether `found` is the sum, but for the errors that are allowed and the rounding to alpha's type.
bool close(double found, const Sum& sum, DType dtype, DType alpha_dtype) {
  if (!std::isfinite(double(sum.value))) return !std::isfinite(found);
  const long double bound = (dtype == DType::Float64 ? 1e-13L : 1e-6L) * sum.magnitude;
  return found >= round_to(alpha_dtype, double(sum.value - bound)) &&
         found <= round_to(alpha_dtype, double(sum.value + bound));
}

void try_backward(Random& random, int64_t scale, const cuda::Launch& launch_) {
  BackwardArgs args;
  args.dtype = any_dtype(random);
  args.shape = any_shape(random, scale);
  args.kind = random.pick({Saved::Input, Saved::Output, Saved::OutputAndMask, Saved::Mask});
  const int64_t numel = args.shape.numel();
  const bool special = random.one_in(3);
  const bool needs_alpha = args.kind != Saved::Mask && !random.one_in(3);
  const bool needs_x = !needs_alpha || !random.one_in(4);
  const Slopes slopes = any_slopes(random, args.shape, args.kind == Saved::Output, !needs_alpha);
  args.alpha = slopes.alpha;

  Operand grad = any_operand(random, args.dtype, args.shape, random.one_in(3), true);
  fill(random, grad.buffer, grad.view, numel, special && !needs_alpha);
  Operand saved = any_operand(random, args.dtype, args.shape, random.one_in(4), false);
  fill(random, saved.buffer, saved.view, numel, special);
  std::vector<uint8_t> mask(size_t(numel + 7) / 8);
  if (args.kind != Saved::Input) {  // y takes the place of x
    ForwardArgs forward;
    forward.dtype = args.dtype;
    forward.shape = args.shape;
    forward.x = saved.buffer.data();
    forward.x_view = forward.y_view = saved.view;
    forward.alpha = args.alpha;
    forward.formula = Formula::LeakyReLUSigned;
    oracle_forward(forward, saved.buffer, mask.data());
  }
  args.grad = grad.buffer.data();
  args.grad_view = grad.view;
  if (args.kind != Saved::Mask) {
    args.saved = saved.buffer.data();
    args.saved_view = saved.view;
  }
  if (args.kind == Saved::OutputAndMask || args.kind == Saved::Mask) args.mask = mask.data();

  Buffer grad_x(args.dtype, numel), expected(args.dtype, numel), from_cpu(args.dtype, numel);
  args.grad_alpha_dtype = any_dtype(random);
  Buffer grad_alpha(args.grad_alpha_dtype, args.shape.channels), again = grad_alpha.copy(), cpu_alpha = again.copy();
  std::vector<Sum> sums(size_t(args.shape.channels));
  oracle_backward(args, expected, needs_alpha ? sums.data() : nullptr);
  args.grad_x = needs_x ? grad_x.data() : nullptr;
  args.grad_alpha = needs_alpha ? grad_alpha.data() : nullptr;

  cuda::Launch launch = launch_;
  const size_t bytes = cuda::workspace_bytes(args, launch.multiprocessors);
  const Buffer workspace(DType::Float64, int64_t(bytes / sizeof(double)));
  launch.workspace = workspace.data();
  std::string text = describe("backward", args.dtype, args.shape, args.alpha, args.grad_view, args.saved_view);
  text += " kind " + std::to_string(int(args.kind)) + " to dtype " + std::to_string(int(args.grad_alpha_dtype));
  expect(bytes <= (1 << 20), "workspace", text, int64_t(bytes));
  const auto check_alpha = [&](const char* what, const Buffer& found) {
    for (int64_t c = 0; needs_alpha && c < args.shape.channels; ++c) {
      expect(close(found.at(c), sums[size_t(c)], args.dtype, args.grad_alpha_dtype), what, text, c);
    }
  };
  cuda::backward(args, launch);
  int64_t where = needs_x ? grad_x.differs(expected) : -1;
  expect(where < 0, "grad_x", text, where);
  check_alpha("grad_alpha", grad_alpha);
  if (needs_alpha) {
    args.grad_alpha = again.data();
    cuda::backward(args, launch);
    where = grad_alpha.differs(again);
    expect(where < 0, "grad_alpha, the second time,", text, where);
  }
#ifdef LEAKY_COMPARE_CPU
  args.grad_x = needs_x ? from_cpu.data() : nullptr;
  args.grad_alpha = needs_alpha ? cpu_alpha.data() : nullptr;
  cpu::backward(args, serial);
  where = needs_x ? grad_x.differs(from_cpu) : -1;
  expect(where < 0, "grad_x, of the CPU kernels,", text, where);
  check_alpha("grad_alpha, of the CPU kernels,", cpu_alpha);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t cases = argc > 1 ? std::atoll(argv[1]) : 100;
  const uint64_t seed = argc > 2 ? uint64_t(std::atoll(argv[2])) : 0;
  const int64_t scale = argc > 3 ? std::atoll(argv[3]) : 1;
  for (int64_t n = 0; n < cases; ++n) {
    Random random(seed * 1000003 + uint64_t(n));
    cuda::Launch launch;
    launch.multiprocessors = int(random.pick({1, 2, 5}));
    n % 2 ? try_backward(random, scale, launch) : try_forward(random, scale, launch);
  }
  std::printf("%lld cases, %d failures\n", (long long)cases, failures);
  return failures != 0;
}
