// The loops over one chunk, written once. Included by loops_*.cpp inside a namespace that has brought a vec_*.h.
//
// A loop works on groups of 64 elements: one word of the mask, and whole cache lines of every type. What is left at the
// end passes through a padded group on the stack. Groups are counted from the chunk's first element, wherever it lies
// in memory: sums are always over the same elements.

constexpr int kGroup = 64;

template <typename T>
struct Traits {
  using V = Float;
};
template <>
struct Traits<double> {
  using V = Double;
};

template <typename T>
using VecOf = typename Traits<T>::V;
template <typename T>
using ScalarOf = typename VecOf<T>::Scalar;

// One group's operands; alphas is null where the slope is uniform.
template <typename T, bool kPer>
struct Slope {
  VecOf<T> uniform;
  const ScalarOf<T>* alphas;
  LEAKY_HD VecOf<T> at(int i) const {
    if constexpr (kPer) return load(alphas + i);
    return uniform;
  }
};

template <typename T>
LEAKY_HD void put(T* p, VecOf<T> value, bool streamed) {
  if (streamed) {
    stream(p, value);
  } else {
    store(p, value);
  }
}

template <typename T, int kFormula, bool kPer>
LEAKY_HD uint64_t forward_group(const T* x, T* y, Slope<T, kPer> slope, bool want_mask, bool streamed) {
  using V = VecOf<T>;
  uint64_t word = 0;
#pragma GCC unroll kUnroll
  for (int i = 0; i < kGroup; i += V::kLanes) {
    const V value = load(x + i);
    if constexpr (kFormula == kReLU) {
      put(y + i, relu(value), streamed);
    } else if constexpr (kFormula == kLeakySigned) {
      put(y + i, leaky_relu_signed(value, slope.at(i)), streamed);
    } else {
      put(y + i, leaky_relu(value, slope.at(i)), streamed);
    }
    if (want_mask) word |= bits(negative(value)) << i;
  }
  return word;
}

template <typename T>
LEAKY_HD void copy_some(T* to, const T* from, int64_t n) {
  std::memcpy(to, from, size_t(n) * sizeof(T));
}

template <typename T, int kFormula, bool kPer>
void forward(const ForwardChunk& chunk) {
  using S = ScalarOf<T>;
  const T* x = static_cast<const T*>(chunk.x);
  T* y = static_cast<T*>(chunk.y);
  const S* alphas = static_cast<const S*>(chunk.alphas);
  const VecOf<T> uniform{S(chunk.alpha)};

  int64_t i = 0;
  for (; i + kGroup <= chunk.n; i += kGroup) {
    const Slope<T, kPer> slope{uniform, kPer ? alphas + i : nullptr};
    const uint64_t word = forward_group<T, kFormula, kPer>(x + i, y + i, slope, chunk.mask != nullptr, chunk.stream);
    if (chunk.mask) std::memcpy(chunk.mask + i / 8, &word, sizeof word);
  }
  if (const int64_t rest = chunk.n - i; rest > 0) {
    T in[kGroup] = {}, out[kGroup];
    S slopes[kGroup] = {};
    copy_some(in, x + i, rest);
    if constexpr (kPer) copy_some(slopes, alphas + i, rest);
    const uint64_t word = forward_group<T, kFormula, kPer>(in, out, {uniform, slopes}, chunk.mask != nullptr, false);
    copy_some(y + i, out, rest);
    if (chunk.mask) std::memcpy(chunk.mask + i / 8, &word, size_t(rest + 7) / 8);
  }
}

template <typename T>
struct Group {
  const T* grad;
  const T* saved;
  T* grad_x;              // null: not wanted
  ScalarOf<T>* products;  // null: summed
  uint64_t word;          // of the mask
};

// Four products are added as they are, then as doubles: at most three roundings to float touch any product, so the
// error of the sum stays below 3 * 2^-24 = 1.8e-7 of sum|grad * x|, whatever the size.
template <typename T, Saved kSaved, bool kPer>
LEAKY_HD Double backward_group(Group<T> group, Slope<T, kPer> slope, bool streamed, Double total) {
  using V = VecOf<T>;
  constexpr int kLanes = V::kLanes;
#pragma GCC unroll kUnroll
  for (int i = 0; i < kGroup; i += 4 * kLanes) {
    V product[4] = {V(0), V(0), V(0), V(0)};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const int at = i + j * kLanes;
      const V grad = load(group.grad + at);
      const V alpha = slope.at(at);
      if constexpr (kSaved == Saved::Mask) {
        put(group.grad_x + at, grad_x(mask_from_bits(grad, group.word >> at), grad, alpha), streamed);
      } else {
        const V saved = load(group.saved + at);
        const auto is_negative = [&] {
          if constexpr (kSaved == Saved::Input) return negative(saved);
          if constexpr (kSaved == Saved::Output) return sign_or_nan(saved);
          if constexpr (kSaved == Saved::OutputAndMask) return mask_from_bits(saved, group.word >> at);
        }();
        if (group.grad_x) put(group.grad_x + at, grad_x(is_negative, grad, alpha), streamed);
        const V x = kSaved == Saved::Input ? saved : input_from_output(is_negative, saved, alpha);
        product[j] = grad_alpha(is_negative, grad, x);
        if (group.products) store(group.products + at, product[j]);
      }
    }
    if constexpr (kSaved != Saved::Mask) {
      total = total + widen((product[0] + product[1]) + (product[2] + product[3]));
    }
  }
  return total;
}

template <typename T, Saved kSaved, bool kPer>
double backward(const BackwardChunk& chunk) {
  using S = ScalarOf<T>;
  constexpr bool kReadsMask = kSaved == Saved::Mask || kSaved == Saved::OutputAndMask;
  constexpr bool kReadsSaved = kSaved != Saved::Mask;
  const T* grad = static_cast<const T*>(chunk.grad);
  const T* saved = static_cast<const T*>(chunk.saved);
  T* grad_x = static_cast<T*>(chunk.grad_x);
  S* products = static_cast<S*>(chunk.products);
  const S* alphas = static_cast<const S*>(chunk.alphas);
  const VecOf<T> uniform{S(chunk.alpha)};
  Double total(0);

  int64_t i = 0;
  for (; i + kGroup <= chunk.n; i += kGroup) {
    uint64_t word = 0;
    if constexpr (kReadsMask) std::memcpy(&word, chunk.mask + i / 8, sizeof word);
    const Group<T> group{grad + i, kReadsSaved ? saved + i : nullptr, grad_x ? grad_x + i : nullptr,
                         products ? products + i : nullptr, word};
    total = backward_group<T, kSaved, kPer>(group, {uniform, kPer ? alphas + i : nullptr}, chunk.stream, total);
  }
  if (const int64_t rest = chunk.n - i; rest > 0) {
    T in[kGroup] = {}, kept[kGroup] = {}, out[kGroup];
    S slopes[kGroup] = {}, terms[kGroup];
    uint64_t word = 0;
    copy_some(in, grad + i, rest);
    if constexpr (kReadsSaved) copy_some(kept, saved + i, rest);
    if constexpr (kPer) copy_some(slopes, alphas + i, rest);
    if constexpr (kReadsMask) std::memcpy(&word, chunk.mask + i / 8, size_t(rest + 7) / 8);
    const Group<T> group{in, kept, out, products ? terms : nullptr, word};
    total = backward_group<T, kSaved, kPer>(group, {uniform, slopes}, false, total);
    if (grad_x) copy_some(grad_x + i, out, rest);
    if (products) copy_some(products + i, terms, rest);
  }
  return sum_of_lanes(total);
}

template <typename T>
double sum(const void* products, int64_t n) {
  using V = VecOf<T>;
  const ScalarOf<T>* p = static_cast<const ScalarOf<T>*>(products);
  Double total(0);
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) total = total + widen(load(p + i));
  double rest = 0;
  for (; i < n; ++i) rest += double(p[i]);
  return sum_of_lanes(total) + rest;
}

template <typename T>
void accumulate(const void* products, int64_t n, double* sums) {
  using V = VecOf<T>;
  const ScalarOf<T>* p = static_cast<const ScalarOf<T>*>(products);
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) add_to(sums + i, load(p + i));
  for (; i < n; ++i) sums[i] += double(p[i]);
}

template <typename T>
constexpr Loops make_loops() {
  return {
      {{forward<T, kLeaky, false>, forward<T, kLeaky, true>},
       {forward<T, kLeakySigned, false>, forward<T, kLeakySigned, true>},
       {forward<T, kReLU, false>, forward<T, kReLU, false>}},
      {{backward<T, Saved::Input, false>, backward<T, Saved::Input, true>},
       {backward<T, Saved::Output, false>, backward<T, Saved::Output, true>},
       {backward<T, Saved::OutputAndMask, false>, backward<T, Saved::OutputAndMask, true>},
       {backward<T, Saved::Mask, false>, backward<T, Saved::Mask, true>}},
      sum<T>,
      accumulate<T>,
  };
}

const Loops& loops(DType dtype) {
  static constexpr Loops tables[] = {make_loops<double>(), make_loops<float>(), make_loops<Half>(),
                                     make_loops<BFloat16>()};
  return tables[int(dtype)];
}
