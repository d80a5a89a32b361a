// Backward on the CPU: grad_x and, in the same pass, d(alpha).
#include <vector>

#include "loops.h"
#include "parallel.h"
#include "partition.h"
#include "slopes.h"
#include "strided.h"
#include "tuning.h"

namespace leaky_ext::cpu {
namespace {

template <typename T>
class Backward {
  using S = Arithmetic<T>;

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
      for (int64_t task = begin; task < end; ++task) run_task(task, partials.data());
    });
    if (!partition_.direct()) combine(partials.data());
  }

 private:
  // Returns the chunk of elements begin to begin + n, in memory order, without slopes.
  BackwardChunk direct_chunk(int64_t begin, int64_t n) const {
    const T* grad = static_cast<const T*>(args_.grad) + begin;
    const T* saved = args_.saved ? static_cast<const T*>(args_.saved) + begin : nullptr;
    T* grad_x = args_.grad_x ? static_cast<T*>(args_.grad_x) + begin : nullptr;
    return {grad, saved, args_.mask ? args_.mask + begin / 8 : nullptr, grad_x, n};
  }

  // Processes elements begin to begin + n. Returns the sum of their products, or writes the products to `products`.
  double chunk(int64_t begin, int64_t n, const double* alpha, S* products) const {
    alignas(64) T grad_buffer[kChunk], saved_buffer[kChunk], grad_x_buffer[kChunk];
    S slopes_buffer[kChunk];
    uint8_t mask_buffer[kChunk / 8 + 1];
    const bool moved = !args_.output_view.dense();
    BackwardChunk chunk = direct_chunk(begin, n);
    chunk.grad = gather(args_.grad, args_.grad_view, begin, n, grad_buffer);
    if (args_.saved) chunk.saved = gather(args_.saved, args_.saved_view, begin, n, saved_buffer);
    if (args_.mask && (moved || begin % 8 != 0)) {
      gather_bits(args_.mask, moved ? args_.output_view : in_order_, begin, n, mask_buffer);
      chunk.mask = mask_buffer;
    }
    if (moved && args_.grad_x) chunk.grad_x = grad_x_buffer;
    if (alpha) {
      chunk.alpha = *alpha;
    } else {
      chunk.alphas = slopes_.of_elements(begin, n, slopes_buffer);
    }
    chunk.products = products;
    const double sum = loops_.backward[int(args_.kind)][alpha ? kUniform : kPerElement](chunk);
    if (moved && args_.grad_x) scatter(grad_x_buffer, args_.output_view, begin, n, static_cast<T*>(args_.grad_x));
    return sum;
  }

  // Processes elements with one slope, alpha. Returns the sum of their products.
  double one_slope(int64_t begin, int64_t n, double alpha) const {
    if (!staged_) {  // without the buffers of chunk(): 76 us instead of 90 for runs of 64 elements
      BackwardChunk whole = direct_chunk(begin, n);
      whole.alpha = alpha;
      return loops_.backward[int(args_.kind)][kUniform](whole);
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i += kChunk) sum += chunk(begin + i, std::min(kChunk, n - i), &alpha, nullptr);
    return sum;
  }

  // Computes grad_x without d(alpha): the order does not matter.
  void flat(int64_t begin, int64_t end) const {
    if (slopes_.uniform()) {
      one_slope(begin, end - begin, slopes_.of_channel(0));
      return;
    }
    for (int64_t i = begin; i < end; i += kChunk) chunk(i, std::min(kChunk, end - i), nullptr, nullptr);
  }

  void run_task(int64_t task, double* partials) const {
    const Partition& p = partition_;
    const int64_t row = slopes_.row();
    const int64_t down = task / p.tasks_across;
    const int64_t first = task % p.tasks_across * p.slots_per_task;
    const int64_t last = std::min(first + p.slots_per_task, p.slots);
    const int64_t top = down * p.rows_per_task;
    const int64_t bottom = std::min(top + p.rows_per_task, p.shape.outer);
    std::vector<double> sums(size_t(last - first), 0.0);

    if (p.slot >= kRun || slopes_.uniform()) {
      for (int64_t r = top; r < bottom; ++r) {
        for (int64_t s = first; s < last; ++s) {
          const int64_t begin = p.begin_of(s);
          sums[s - first] += one_slope(r * row + begin, p.begin_of(s + 1) - begin, slopes_.of_channel(p.channel_of(s)));
        }
      }
    } else {
      // Adds products by column, over all rows of the task. If rows are short, a chunk has many whole rows.
      const bool short_rows = row <= kChunk;
      const int64_t width = short_rows ? std::min(kChunk / row * row, (bottom - top) * row) : (last - first) * p.slot;
      std::vector<double> columns(size_t(width), 0.0);
      const auto add = [&](int64_t begin, int64_t end) {
        alignas(64) S products[kChunk];
        for (int64_t i = begin, n; i < end; i += n) {
          n = std::min({width, kChunk, end - i});
          chunk(i, n, nullptr, products);
          loops_.accumulate(products, n, columns.data() + (short_rows ? 0 : i - begin));
        }
      };
      if (short_rows) {
        add(top * row, bottom * row);
      } else {
        for (int64_t r = top; r < bottom; ++r) add(r * row + first * p.slot, r * row + last * p.slot);
      }
      for (auto column = columns.begin(); column != columns.end();) {
        for (double& sum : sums) {
          for (int64_t i = 0; i < p.slot; ++i) sum += *column++;
        }
      }
    }

    if (p.direct()) {
      write(first, sums.data(), last - first);
    } else {
      std::copy(sums.begin(), sums.end(), partials + down * p.slots + first);
    }
  }

  // Adds partial sums over the tasks, then over the slots of a channel, in pairs: the error grows with log(their
  // number).
  void combine(double* partials) const {
    const Partition& p = partition_;
    add_pairwise(partials, p.tasks_down, p.slots);
    for (int64_t c = 0; c < p.shape.channels; ++c) {
      double* channel = partials + c * p.slots_per_channel;
      add_pairwise(channel, p.slots_per_channel, 1);
      write(c, channel, 1);
    }
  }

  // Adds `count` rows of `width` numbers into the first.
  static void add_pairwise(double* rows, int64_t count, int64_t width) {
    for (int64_t gap = 1; gap < count; gap *= 2) {
      for (int64_t i = 0; i + gap < count; i += 2 * gap) {
        double* to = rows + i * width;
        const double* from = to + gap * width;
        for (int64_t j = 0; j < width; ++j) to[j] += from[j];
      }
    }
  }

  void write(int64_t channel, const double* sums, int64_t n) const {
    with_type(args_.grad_alpha_dtype, [&](auto zero) {
      auto* to = static_cast<decltype(zero)*>(args_.grad_alpha) + channel;
      for (int64_t i = 0; i < n; ++i) store_rounded(to + i, sums[i]);
    });
  }

  const BackwardArgs& args_;
  const Slopes<S> slopes_;
  const Partition partition_;
  const Loops& loops_;
  const StridedView in_order_{1, {args_.shape.numel()}, {1}};
  const bool staged_;
};

}  // namespace

void backward(const BackwardArgs& args, ParallelFor parallel_for) {
  with_type(args.dtype, [&](auto zero) { Backward<decltype(zero)>(args).run(parallel_for); });
}

}  // namespace leaky_ext::cpu
