// Backward on the CPU: grad_x and, in the same pass, d(alpha).
#include <vector>

#include "chunk.h"
#include "parallel.h"
#include "partition.h"
#include "slopes.h"
#include "strided.h"
#include "tuning.h"

namespace leaky_ext::cpu {
namespace {

template <typename S, typename Bits>  // the type of the arithmetic, and of an element's bits
class Backward {
 public:
  explicit Backward(const BackwardArgs& args)
      : args_(args),
        slopes_(args.alpha, args.shape),
        partition_(args.shape),
        loops_(loops(args.dtype)),
        staged_(!args.grad_view.dense() || (args.saved && !args.saved_view.dense()) || !args.output_view.dense() ||
                args.kind == Saved::OutputAndMask) {}

  void run(ParallelFor parallel_for) const {
    const int64_t n = args_.shape.numel();
    if (!args_.grad_alpha) {
      run_elements(parallel_for, n, [&](int64_t begin, int64_t end) { flat(begin, end); });
      return;
    }
    if (n == 0) {
      const std::vector<double> zeros(size_t(args_.shape.channels), 0.0);
      write(0, zeros.data(), args_.shape.channels);
      return;
    }
    std::vector<double> partials(partition_.direct() ? 0 : size_t(partition_.partials()));
    run_tasks(parallel_for, partition_.tasks(), partition_.grain(), [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) rectangle(task, partials.data());
    });
    if (!partition_.direct()) combine(partials.data());
  }

 private:
  // Elements begin to begin + n as they lie in memory, without slopes.
  BackwardChunk in_place(int64_t begin, int64_t n) const {
    const Bits* grad = static_cast<const Bits*>(args_.grad);
    const Bits* saved = static_cast<const Bits*>(args_.saved);
    const uint8_t* mask = args_.mask ? args_.mask + begin / 8 : nullptr;
    Bits* grad_x = args_.grad_x ? static_cast<Bits*>(args_.grad_x) + begin : nullptr;
    return {grad + begin, saved ? saved + begin : nullptr, mask, grad_x, n, 0, nullptr, nullptr};
  }

  // Elements begin to begin + n. Returns the sum of their products, or writes these to `products`.
  double chunk(int64_t begin, int64_t n, const double* alpha, S* products) const {
    alignas(64) Bits grad_buffer[kChunk], saved_buffer[kChunk], grad_x_buffer[kChunk];
    S slopes_buffer[kChunk];
    uint8_t mask_buffer[kChunk / 8 + 1];
    BackwardChunk chunk = in_place(begin, n);
    chunk.products = products;
    if (!args_.grad_view.dense()) {
      gather(static_cast<const Bits*>(args_.grad), args_.grad_view, begin, n, grad_buffer);
      chunk.grad = grad_buffer;
    }
    if (args_.saved && !args_.saved_view.dense()) {
      gather(static_cast<const Bits*>(args_.saved), args_.saved_view, begin, n, saved_buffer);
      chunk.saved = saved_buffer;
    }
    const bool moved = !args_.output_view.dense();
    if (args_.mask && (moved || args_.kind == Saved::OutputAndMask)) {
      if (moved) {
        gather_bits(args_.mask, args_.output_view, begin, n, mask_buffer);
      } else {
        align_mask(begin, n, mask_buffer);
      }
      chunk.mask = mask_buffer;
    }
    if (moved && args_.grad_x) chunk.grad_x = grad_x_buffer;
    if (alpha) {
      chunk.alpha = *alpha;
    } else {
      chunk.alphas = slopes_.of_elements(begin, n, slopes_buffer);
    }
    const double sum = loops_.backward[int(args_.kind)][alpha ? kUniform : kPerElement](chunk);
    if (moved && args_.grad_x) scatter(grad_x_buffer, args_.output_view, begin, n, static_cast<Bits*>(args_.grad_x));
    return sum;
  }

  // The mask's bits from `begin` on, shifted so that the first is bit 0.
  void align_mask(int64_t begin, int64_t n, uint8_t* to) const {
    const uint8_t* from = args_.mask + begin / 8;
    const int shift = int(begin % 8);
    const int64_t bytes = (n + shift + 7) / 8;
    for (int64_t i = 0; i < bytes; ++i) {
      const unsigned high = i + 1 < bytes ? from[i + 1] : 0;
      to[i] = uint8_t((from[i] | high << 8) >> shift);
    }
  }

  // Elements with the one slope alpha; returns the sum of their products.
  double stretch(int64_t begin, int64_t n, double alpha) const {
    if (!staged_) {  // not by way of chunk(), whose buffers cost more than 64 elements: runs of 64 took 90 us, now 76
      BackwardChunk whole = in_place(begin, n);
      whole.alpha = alpha;
      return loops_.backward[int(args_.kind)][kUniform](whole);
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i += kChunk) sum += chunk(begin + i, std::min(kChunk, n - i), &alpha, nullptr);
    return sum;
  }

  // Elements begin to end, in chunks of `step`; `take` gets each chunk's place, length and products.
  template <typename Take>
  void chunks(int64_t begin, int64_t end, int64_t step, Take take) const {
    alignas(64) S products[kChunk];
    for (int64_t i = begin; i < end; i += step) {
      const int64_t n = std::min(step, end - i);
      chunk(i, n, nullptr, products);
      take(i, n, products);
    }
  }

  // No d(alpha): any order is right.
  void flat(int64_t begin, int64_t end) const {
    if (slopes_.uniform()) {
      stretch(begin, end - begin, slopes_.of_channel(0));
      return;
    }
    for (int64_t i = begin; i < end; i += kChunk) chunk(i, std::min(kChunk, end - i), nullptr, nullptr);
  }

  void rectangle(int64_t task, double* partials) const {
    const Partition& p = partition_;
    const int64_t row = slopes_.row();
    const int64_t block = task / p.slot_blocks;
    const int64_t first = task % p.slot_blocks * p.slots_per_task;
    const int64_t last = std::min(first + p.slots_per_task, p.slots);
    const int64_t top = block * p.rows_per_task;
    const int64_t bottom = std::min(top + p.rows_per_task, p.shape.outer);
    std::vector<double> sums(size_t(last - first), 0.0);

    if (p.slot >= kRun || slopes_.uniform()) {
      for (int64_t r = top; r < bottom; ++r) {
        for (int64_t s = first; s < last; ++s) {
          const int64_t begin = p.begin_of(s);
          sums[s - first] += stretch(r * row + begin, p.begin_of(s + 1) - begin, slopes_.of_channel(p.channel_of(s)));
        }
      }
    } else if (row <= kChunk) {
      short_rows(top * row, bottom * row, sums.data());
    } else {
      const int64_t step = kChunk / p.slot * p.slot;
      for (int64_t r = top; r < bottom; ++r) {
        chunks(r * row + first * p.slot, r * row + last * p.slot, step, [&](int64_t at, int64_t n, const S* products) {
          double* to = sums.data() + (at - r * row) / p.slot - first;
          if (p.slot == 1) {
            loops_.accumulate(products, n, to);
          } else {
            for (int64_t i = 0; i < n; i += p.slot) *to++ += loops_.sum(products + i, p.slot);
          }
        });
      }
    }

    if (p.direct()) {
      write(first, sums.data(), last - first);
    } else {
      std::copy(sums.begin(), sums.end(), partials + block * p.slots + first);
    }
  }

  // Whole rows, many to a chunk: products are added column by column, and the columns of a slope at the end.
  void short_rows(int64_t begin, int64_t end, double* sums) const {
    const int64_t row = slopes_.row();
    const int64_t step = std::min(kChunk / row * row, end - begin);
    std::vector<double> columns(size_t(step), 0.0);
    chunks(begin, end, step,
           [&](int64_t, int64_t n, const S* products) { loops_.accumulate(products, n, columns.data()); });
    for (auto column = columns.begin(); column != columns.end();) {
      for (int64_t s = 0; s < partition_.slots; ++s) {
        for (int64_t i = 0; i < partition_.slot; ++i) sums[s] += *column++;
      }
    }
  }

  // Adds the row blocks, then a channel's slots, each pair by pair: the error grows with the logarithm of their number.
  void combine(double* partials) const {
    const Partition& p = partition_;
    add_pairwise(partials, p.row_blocks, p.slots, p.slots);
    for (int64_t c = 0; c < p.shape.channels; ++c) {
      double* channel = partials + c * p.slots_per_channel;
      add_pairwise(channel, p.slots_per_channel, 1, 1);
      write(c, channel, 1);
    }
  }

  // Adds `count` rows of `width` numbers into the first.
  static void add_pairwise(double* rows, int64_t count, int64_t width, int64_t stride) {
    for (int64_t gap = 1; gap < count; gap *= 2) {
      for (int64_t i = 0; i + gap < count; i += 2 * gap) {
        double* to = rows + i * stride;
        const double* from = to + gap * stride;
        for (int64_t j = 0; j < width; ++j) to[j] += from[j];
      }
    }
  }

  void write(int64_t channel, const double* sums, int64_t n) const {
    with_type(args_.grad_alpha_dtype, [&](auto* type) {
      auto* to = static_cast<decltype(type)>(args_.grad_alpha) + channel;
      for (int64_t i = 0; i < n; ++i) store_rounded(to + i, sums[i]);
    });
  }

  const BackwardArgs& args_;
  const Slopes<S> slopes_;
  const Partition partition_;
  const Loops& loops_;
  const bool staged_;
};

}  // namespace

void backward(const BackwardArgs& args, ParallelFor parallel_for) {
  switch (args.dtype) {
    case DType::Float64:
      return Backward<double, uint64_t>(args).run(parallel_for);
    case DType::Float32:
      return Backward<float, uint32_t>(args).run(parallel_for);
    case DType::Float16:
    case DType::BFloat16:
      return Backward<float, uint16_t>(args).run(parallel_for);
  }
}

}  // namespace leaky_ext::cpu
