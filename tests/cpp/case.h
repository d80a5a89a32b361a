// Cases drawn at random, from a seed that repeats them.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <string>

#include "buffer.h"

using leaky_ext::Shape;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t below(int64_t n) { return int64_t(engine_() % uint64_t(n)); }
  bool one_in(int64_t n) { return below(n) == 0; }
  double normal() { return normal_(engine_); }
  template <typename T, size_t N>
  T pick(const T (&values)[N]) {
    return values[below(N)];
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

inline DType any_dtype(Random& random) {
  return random.pick({DType::Float64, DType::Float32, DType::Float16, DType::BFloat16});
}

// Small shapes of every kind, and now and then one of those that reach a certain path.
inline Shape any_shape(Random& random, int64_t scale) {
  static constexpr int64_t kShapes[][3] = {
      {1, 1, 1},   {1, 1, 4095}, {1, 1, 6001}, {1, 300, 1},  {1, 4001, 1}, {40, 64, 1},  {301, 3, 1},  {700, 1, 1},
      {60, 5, 7},  {2, 3, 1024}, {3, 8, 256},  {4, 2, 1025}, {2, 5000, 1}, {2, 600, 9},  {3, 601, 16}, {9, 130, 4},
      {128, 8, 1}, {50, 70, 1},  {0, 5, 3},    {3, 0, 2},    {64, 16, 4},  {1000, 2, 2}, {5, 40, 33},  {90, 33, 1},
  };
  if (random.one_in(3)) {
    const auto& shape = kShapes[random.below(sizeof kShapes / sizeof *kShapes)];
    return {shape[0] * scale, shape[1], shape[2]};
  }
  const int64_t channels = random.one_in(3) ? 1 : 1 + random.below(40);
  const int64_t inner = random.one_in(3) ? 1 : 1 + random.below(30);
  return {1 + random.below(20), channels, inner};
}

// An operand that holds the elements of a shape, somewhere and somehow.
struct Operand {
  Buffer buffer;
  StridedView view;
};

inline Operand any_operand(Random& random, DType dtype, const Shape& shape, bool strided, bool may_overlap) {
  const int64_t offset = random.one_in(3) ? random.below(41) : 0;
  Operand operand;
  if (!strided || shape.numel() == 0) {
    operand.buffer = Buffer(dtype, shape.numel(), offset);
    return operand;
  }
  const int64_t size[] = {shape.outer, shape.channels, shape.inner};
  int order[] = {0, 1, 2};  // of memory, innermost first
  for (int d = 2; d > 0; --d) std::swap(order[d], order[random.below(d + 1)]);
  StridedView& view = operand.view;
  view.ndim = 3;
  int64_t step = 1 + random.below(2), lowest = 0, highest = 0;
  for (const int d : order) {
    view.size[d] = size[d];
    view.stride[d] = random.one_in(4) ? -step : step;
    if (may_overlap && random.one_in(4)) view.stride[d] = 0;
    (view.stride[d] < 0 ? lowest : highest) += view.stride[d] * (size[d] - 1);
    step *= size[d] + random.below(2);
  }
  operand.buffer = Buffer(dtype, highest + 1, offset - lowest);
  return operand;
}

// The places 0 to numel - 1 in another order: that of groups of neighbouring channels, outermost, and then of `outer`.
inline StridedView permutation(const Shape& shape) {
  const int64_t group = shape.channels % 8 == 0 ? 8 : shape.channels % 2 == 0 ? 2 : 1, run = group * shape.inner;
  StridedView view;
  view.ndim = 3;
  const int64_t size[] = {shape.outer, shape.channels / group, run}, stride[] = {run, run * shape.outer, 1};
  std::copy_n(size, 3, view.size);
  std::copy_n(stride, 3, view.stride);
  return view;
}

// Ordinary numbers; with `special`, zeros of both signs, infinities and NaN among them.
inline void fill(Random& random, Buffer& buffer, const StridedView& view, int64_t numel, bool special) {
  static constexpr double kSpecial[] = {0.0, -0.0, 0.0, -0.0, INFINITY, -INFINITY, NAN, -NAN};
  for (int64_t i = 0; i < numel; ++i) {
    buffer.set(place(view, i), special && random.one_in(6) ? random.pick(kSpecial) : random.normal());
  }
}

struct Slopes {
  Buffer buffer;
  Alpha alpha;
};

inline Slopes any_slopes(Random& random, const Shape& shape, bool positive, bool may_be_value) {
  Slopes slopes;
  const auto draw = [&] {
    const double value = random.normal();
    return positive ? std::fabs(value) + 0.01 : random.one_in(9) ? 0.0 : value;
  };
  if (may_be_value && random.one_in(3)) {
    slopes.alpha.value = draw();
    return slopes;
  }
  slopes.alpha.dtype = any_dtype(random);
  slopes.buffer = Buffer(slopes.alpha.dtype, shape.channels);
  for (int64_t c = 0; c < shape.channels; ++c) slopes.buffer.set(c, draw());
  slopes.alpha.data = slopes.buffer.data();
  return slopes;
}
