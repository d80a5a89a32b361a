// The CPU kernels against the formulas in plain scalar code: every dtype, formula, layout and kind of saved tensor.
// Each output lies between sentinels. LEAKY_EXT_CPU chooses the instruction set, LEAKY_EXT_STREAM_BYTES=0 non-temporal
// stores wherever an output is aligned; no torch, no Python.
#include "support.h"

namespace leaky_ext::test {
namespace {

constexpr int64_t kGuard = 40;  // elements before and after an output

template <typename T>
struct Guarded {
  using Bits = typename T::Bits;
  static constexpr Bits kSentinel = Bits(0x4242424242424242ull);
  std::vector<Bits> memory;
  int64_t offset, size;

  Guarded(int64_t n, int64_t misaligned) : memory(size_t(n + 2 * kGuard + 64 + misaligned), kSentinel) {
    offset = kGuard;
    while (reinterpret_cast<uintptr_t>(data()) % 64) ++offset;
    offset += misaligned;
    size = n;
  }
  Bits* data() { return memory.data() + offset; }
  bool intact() const {
    for (int64_t i = 0; i < int64_t(memory.size()); ++i) {
      if ((i < offset || i >= offset + size) && memory[size_t(i)] != kSentinel) return false;
    }
    return true;
  }
};

// A case: sizes as the kernels know them, how x and grad lie, and how far outputs are from an alignment.
struct Case {
  Shape shape;
  StridedView view = {};
  int64_t misaligned = 0;
  bool one_value = false;  // the slope comes as a value, not as memory
};

int64_t place(const StridedView& view, int64_t i) {
  if (view.dense()) return i;
  int64_t at = 0;
  for (int d = view.ndim; d-- > 0; i /= view.size[d]) at += i % view.size[d] * view.stride[d];
  return at;
}

template <typename T>
class Check {
  using Bits = typename T::Bits;
  using Math = typename T::Math;

 public:
  Check(const Case& c) : case_(c), n_(c.shape.numel()), x_(spread(1, false)), grad_(spread(2, true)) {
    for (int64_t i = 0; i < c.shape.channels; ++i) slopes_.push_back(float(i % 5) * 0.25f - 0.375f);
  }

  void run() {
    for (const bool with_mask : {false, true}) {
      forward(Formula::LeakyReLU, with_mask, false);
      forward(Formula::LeakyReLUSigned, with_mask, false);
      forward(Formula::LeakyReLU, with_mask, true);
      forward(Formula::ReLU, with_mask, false);
      forward(Formula::ReLU, with_mask, true);
    }
    for (const Saved kind : {Saved::Input, Saved::Output, Saved::OutputAndMask, Saved::Mask}) {
      backward(kind, true, false);
      if (kind != Saved::Mask) backward(kind, false, true);
      if (kind != Saved::Mask) backward(kind, true, true);
    }
  }

 private:
  // Memory in which element i lies where the view says; element 0 is in the middle, for strides may be negative.
  struct Spread {
    std::vector<Bits> memory;
    int64_t start;
    Bits* data() { return memory.data() + start; }
  };

  Spread spread(uint32_t seed, bool finite) {
    int64_t reach = n_;
    for (int d = 0; d < case_.view.ndim; ++d) reach += case_.view.size[d] * std::abs(case_.view.stride[d]);
    Spread s{std::vector<Bits>(size_t(2 * reach + 1)), reach};
    for (int64_t i = 0; i < n_; ++i) {
      s.data()[place(case_.view, i)] = finite ? finite_element<T>(i, seed) : element<T>(i, seed);
    }
    return s;
  }

  Math x(int64_t i) { return T::get(x_.data()[place(case_.view, i)]); }
  Math grad(int64_t i) { return T::get(grad_.data()[place(case_.view, i)]); }
  Math slope(int64_t i) const { return slopes_[size_t(i / case_.shape.inner % case_.shape.channels)]; }

  Alpha alpha() const {
    Alpha alpha;
    if (case_.one_value) {
      alpha.value = slopes_[0];
    } else {
      alpha.data = slopes_.data();
      alpha.dtype = DType::Float32;
    }
    return alpha;
  }

  Bits expected(Formula formula, int64_t i) {
    const Math value = x(i);
    if (formula == Formula::ReLU) return T::put(value < 0 ? Math(0) : value);
    if (negative(value)) return T::put(slope(i) * value);
    return T::put(formula == Formula::LeakyReLUSigned ? value + Math(0) : value);
  }

  bool mask_bit(const std::vector<uint8_t>& mask, int64_t i) const { return mask[size_t(i / 8)] >> (i % 8) & 1; }

  std::vector<uint8_t> mask_of_x() {
    std::vector<uint8_t> mask(size_t(n_ + 7) / 8);
    for (int64_t i = 0; i < n_; ++i) mask[size_t(i / 8)] |= uint8_t(negative(x(i)) << (i % 8));
    return mask;
  }

  void forward(Formula formula, bool with_mask, bool in_place) {
    Guarded<T> y(n_, case_.misaligned);
    std::vector<uint8_t> mask(size_t(n_ + 7) / 8 + 2, 0x42);
    Spread changed = x_;
    ForwardArgs args;
    args.formula = formula;
    args.dtype = T::dtype;
    args.shape = case_.shape;
    args.x = in_place ? changed.data() : x_.data();
    args.x_view = case_.view;
    args.y = in_place ? changed.data() : y.data();
    if (in_place) args.y_view = case_.view;
    args.alpha = alpha();
    if (with_mask) args.mask = mask.data() + 1;
    if (in_place && overlaps()) return;
    cpu::forward(args, parallel_for);
    CHECK(y.intact() && mask.front() == 0x42 && mask.back() == 0x42, "forward wrote outside its output");
    for (int64_t i = 0; i < n_; ++i) {
      const Bits got = in_place ? changed.data()[place(case_.view, i)] : y.data()[i];
      const Bits want = expected(formula, i);
      CHECK(same<T>(got, want), "y[%ld] of %ld: %g, not %g", long(i), long(n_), double(T::get(got)),
            double(T::get(want)));
      if (with_mask) CHECK((mask[size_t(1 + i / 8)] >> (i % 8) & 1) == negative(x(i)), "mask bit %ld", long(i));
    }
  }

  // Elements that share memory: in place is not defined, and the operators refuse it.
  bool overlaps() const {
    for (int d = 0; d < case_.view.ndim; ++d) {
      if (case_.view.stride[d] == 0 && case_.view.size[d] > 1) return true;
    }
    return false;
  }

  void backward(Saved kind, bool need_x, bool need_alpha) {
    // What is rebuilt from y must be finite, and where y's sign tells, slopes are positive.
    std::vector<float> slopes = slopes_;
    if (kind == Saved::Output) {
      for (float& value : slopes_) value = std::fabs(value);
    }
    Spread saved = x_;
    if (kind == Saved::Output || kind == Saved::OutputAndMask) {
      for (int64_t i = 0; i < n_; ++i) {
        saved.data()[place(case_.view, i)] =
            expected(kind == Saved::Output ? Formula::LeakyReLUSigned : Formula::LeakyReLU, i);
      }
    }
    const std::vector<uint8_t> mask = mask_of_x();
    Guarded<T> grad_x(need_x ? n_ : 0, case_.misaligned);
    std::vector<Math> grad_alpha(slopes_.size() + 2, Math(42));
    BackwardArgs args;
    args.dtype = T::dtype;
    args.shape = case_.shape;
    args.grad = grad_.data();
    args.grad_view = case_.view;
    args.kind = kind;
    args.saved = saved.data();
    args.saved_view = case_.view;
    if (kind == Saved::Mask || kind == Saved::OutputAndMask) args.mask = mask.data();
    args.alpha = alpha();
    if (need_x) args.grad_x = grad_x.data();
    if (need_alpha) args.grad_alpha = grad_alpha.data() + 1;
    args.grad_alpha_dtype = sizeof(Math) == 8 ? DType::Float64 : DType::Float32;
    cpu::backward(args, parallel_for);

    std::vector<double> sum(slopes_.size()), total(slopes_.size());
    bool exact = true;  // every x can be rebuilt without a special value in the sum
    for (int64_t i = 0; i < n_; ++i) {
      const bool is_negative = negative(x(i));
      const Bits want = T::put(is_negative ? slope(i) * grad(i) : grad(i));
      if (need_x) CHECK(same<T>(grad_x.data()[i], want), "grad_x[%ld] of %ld, kind %d", long(i), long(n_), int(kind));
      if (!is_negative) continue;
      const Math kept = T::get(saved.data()[place(case_.view, i)]);
      const double product = double(grad(i)) * double(kind == Saved::Input ? kept : kept / slope(i));
      exact = exact && std::isfinite(product);
      const auto channel = size_t(i / case_.shape.inner % case_.shape.channels);
      sum[channel] += product;
      total[channel] += std::fabs(product);
    }
    CHECK(grad_x.intact() && grad_alpha.front() == 42 && grad_alpha.back() == 42, "backward wrote outside its output");
    const double tolerance = sizeof(Math) == 8 ? 1e-13 : 2e-7;
    for (size_t c = 0; need_alpha && c < sum.size(); ++c) {
      const double got = double(grad_alpha[c + 1]);
      const bool right = std::isfinite(sum[c]) ? std::fabs(got - sum[c]) <= tolerance * total[c] + 1e-30
                         : std::isnan(sum[c])  ? std::isnan(got)
                                               : got == sum[c];
      CHECK(right, "grad_alpha[%zu]: %.10g, not %.10g (n = %ld, kind %d)", c, got, sum[c], long(n_), int(kind));
    }
    if (need_alpha) same_for_any_threads(args, grad_alpha);
    slopes_ = slopes;
  }

  void same_for_any_threads(BackwardArgs args, const std::vector<Math>& want) {
    std::vector<Math> grad_alpha(want.size() - 2);
    args.grad_x = nullptr;
    args.grad_alpha = grad_alpha.data();
    for (const int count : {1, 2, 3, 7}) {
      threads = count;
      cpu::backward(args, parallel_for);
      CHECK(std::memcmp(grad_alpha.data(), want.data() + 1, grad_alpha.size() * sizeof(Math)) == 0,
            "%d threads give other bits of grad_alpha", count);
    }
    threads = 2;
  }

  Case case_;
  int64_t n_;
  Spread x_, grad_;
  std::vector<float> slopes_;
};

StridedView view(std::initializer_list<int64_t> sizes, std::initializer_list<int64_t> strides) {
  StridedView view;
  for (const int64_t size : sizes) view.size[view.ndim++] = size;
  std::copy(strides.begin(), strides.end(), view.stride);
  return view;
}

template <typename T>
void check(const Case& c) {
  Check<T>(c).run();
}

void check_all(const Case& c) {
  check<Float64>(c);
  check<Float32>(c);
  check<Float16>(c);
  check<BFloat16>(c);
}

// Every float16 and bfloat16 pattern, as x and as gradient, under slopes that reach subnormal results, overflow and
// NaN. The slope NaN has a payload, all bits set: a rounding that adds to it carries into the sign.
template <typename T>
void check_every_pattern() {
  constexpr int64_t n = 65536;
  std::vector<typename T::Bits> x(n), y(n), grad_x(n);
  for (int64_t i = 0; i < n; ++i) x[size_t(i)] = typename T::Bits(i);
  std::vector<uint8_t> mask(n / 8);
  const float nan = bits_as<float>(0x7fffffffu);
  for (const float slope : {0.01f, -0.3f, 1.0f, 0x1p-120f, 0x1p-20f, 3e38f, INFINITY, 0.0f, nan}) {
    for (const bool per_element : {false, true}) {
      const std::vector<float> slopes(per_element ? n : 1, slope);
      ForwardArgs forward;
      forward.dtype = T::dtype;
      forward.shape = {1, int64_t(slopes.size()), n / int64_t(slopes.size())};
      forward.x = x.data();
      forward.y = y.data();
      forward.mask = mask.data();
      forward.alpha = {slopes.data(), DType::Float32};
      cpu::forward(forward, nullptr);
      BackwardArgs backward;  // the gradient runs over every pattern; x is negative everywhere
      std::vector<typename T::Bits> minus(n, T::put(-1));
      backward.dtype = T::dtype;
      backward.shape = forward.shape;
      backward.grad = x.data();
      backward.saved = minus.data();
      backward.alpha = forward.alpha;
      backward.grad_x = grad_x.data();
      cpu::backward(backward, nullptr);
      for (int64_t i = 0; i < n; ++i) {
        const typename T::Math value = T::get(x[size_t(i)]);
        const auto product = T::put(slope * value);
        CHECK(same<T>(y[size_t(i)], negative(value) ? product : x[size_t(i)]), "y of %#lx, slope %g", long(i), slope);
        CHECK((mask[size_t(i / 8)] >> (i % 8) & 1) == negative(value), "mask of %#lx", long(i));
        CHECK(same<T>(grad_x[size_t(i)], product), "grad_x of %#lx, slope %g", long(i), slope);
      }
    }
  }
  ForwardArgs relu;
  relu.formula = Formula::ReLU;
  relu.dtype = T::dtype;
  relu.shape = {1, 1, n};
  relu.x = x.data();
  relu.y = y.data();
  cpu::forward(relu, nullptr);
  for (int64_t i = 0; i < n; ++i) {
    const auto want = T::get(x[size_t(i)]) < 0 ? typename T::Bits(0) : x[size_t(i)];
    CHECK(same<T>(y[size_t(i)], want), "ReLU of %#lx", long(i));
  }
}

void check_everything() {
  threads = 2;
  check_every_pattern<Float16>();
  check_every_pattern<BFloat16>();
  for (const int64_t n : {0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 255, 257, 2047, 2049, 4095, 4097, 100003}) {
    for (const int64_t misaligned : {0, 1, 3}) check_all({{1, 1, n}, {}, misaligned});
    check_all({{1, 1, n}, {}, 0, true});
  }
  for (int64_t misaligned = 4; misaligned <= 40; ++misaligned) check_all({{1, 1, 1000}, {}, misaligned});
  check_all({{3, 7, 1}});
  check_all({{5, 1, 33}});
  check_all({{2, 3, 40}});
  check_all({{2, 3, 70000}});
  check_all({{700, 130, 1}, {}, 1});
  check_all({{1, 5000, 9}});
  check_all({{0, 4, 3}});
  check_all({{1, 1, 5000}, view({5000}, {2})});
  check_all({{1, 1, 5000}, view({5000}, {-1})});
  check_all({{1, 1, 4096}, view({4096}, {0})});
  check_all({{4, 6, 500}, view({4, 6, 500}, {3000, 1, 6})});
  check_all({{4, 6, 500}, view({4, 6, 500}, {1, 4, 24})});
  check_all({{2, 6, 5}, view({2, 2, 3, 5}, {-900, 31, 200, 3})});
}

}  // namespace
}  // namespace leaky_ext::test

int main() { return leaky_ext::test::run("kernels", leaky_ext::test::check_everything); }
