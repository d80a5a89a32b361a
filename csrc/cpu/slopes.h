// Slopes in the compute dtype: one for all elements, or one for each element of a chunk.
#pragma once

#include <algorithm>
#include <vector>

#include "../kernels.h"
#include "half.h"
#include "tuning.h"

namespace leaky_ext::cpu {

// Calls visit with a value of the element type.
template <typename Visit>
auto with_type(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::Float64:
      return visit(double());
    case DType::Float32:
      return visit(float());
    case DType::Float16:
      return visit(Half());
    case DType::BFloat16:
      return visit(BFloat16());
  }
  __builtin_unreachable();
}

// The type that elements of type T are computed in.
template <typename T>
using Arithmetic = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename S>  // float or double
class Slopes {
 public:
  Slopes(const Alpha& alpha, const Shape& shape) : alpha_(alpha), shape_(shape) {
    const int64_t n = shape.numel();
    if (uniform() || n == 0 || row() > kTable) return;
    table_.resize(size_t(std::min(row() + kChunk, n)));
    fill(0, row(), table_.data());
    for (size_t i = size_t(row()); i < table_.size(); ++i) table_[i] = table_[i - size_t(row())];
  }

  bool uniform() const { return shape_.channels == 1 || !alpha_.data; }
  int64_t row() const { return shape_.channels * shape_.inner; }

  double of_channel(int64_t channel) const {
    if (!alpha_.data) return alpha_.value;
    return with_type(alpha_.dtype, [&](auto zero) {
      return double(widen(static_cast<const decltype(zero)*>(alpha_.data)[channel]));
    });
  }

  // Returns the slopes of elements begin to begin + n, n <= kChunk. May write them to `buffer`.
  const S* of_elements(int64_t begin, int64_t n, S* buffer) const {
    if (!table_.empty()) return table_.data() + begin % row();
    fill(begin, n, buffer);
    return buffer;
  }

 private:
  void fill(int64_t begin, int64_t n, S* to) const {
    with_type(alpha_.dtype, [&](auto zero) {
      const auto* slopes = static_cast<const decltype(zero)*>(alpha_.data);
      int64_t channel = begin / shape_.inner % shape_.channels;
      int64_t left = shape_.inner - begin % shape_.inner;
      for (int64_t i = 0; i < n; left = shape_.inner) {
        const int64_t run = std::min(n - i, left);
        const S slope = S(widen(slopes[channel]));
        for (int64_t j = 0; j < run; ++j) to[i + j] = slope;
        i += run;
        if (++channel == shape_.channels) channel = 0;
      }
    });
  }

  const Alpha& alpha_;
  const Shape& shape_;
  std::vector<S> table_;
};

}  // namespace leaky_ext::cpu
