// Forward on the CPU: the elements are cut into chunks, and threads take ranges of them.
#include "chunk.h"
#include "parallel.h"
#include "slopes.h"
#include "strided.h"
#include "tuning.h"

namespace leaky_ext::cpu {
namespace {

template <typename S, typename Bits>  // the type of the arithmetic, and of an element's bits
class Forward {
 public:
  Forward(const ForwardArgs& args, const Slopes<S>& slopes)
      : args_(args),
        slopes_(slopes),
        uniform_(args.formula == Formula::ReLU || slopes.uniform()),
        runs_(!uniform_ && in_runs()),
        loop_(loops(args.dtype).forward[int(args.formula)][uniform_ || runs_ ? kUniform : kPerElement]) {}

  // Elements begin to end; begin is a multiple of kChunk.
  void run(int64_t begin, int64_t end) const {
    if (runs_) {
      runs(begin, end);
    } else {
      const int64_t step = uniform_ && dense() ? end - begin : kChunk;
      for (int64_t i = begin; i < end; i += step) chunk(i, std::min(step, end - i));
    }
  }

 private:
  bool dense() const { return args_.x_view.dense() && args_.y_view.dense(); }

  // Whether each run of elements with one slope is a chunk of its own: it is long, and its bits of the mask are whole
  // bytes.
  bool in_runs() const {
    const int64_t inner = args_.shape.inner;
    return dense() && inner >= kRun && (!args_.mask || inner % 8 == 0);
  }

  void runs(int64_t begin, int64_t end) const {
    const int64_t inner = args_.shape.inner, channels = args_.shape.channels;
    int64_t channel = begin / inner % channels, n = std::min(inner - begin % inner, end - begin);
    for (int64_t i = begin; i < end; i += n, n = std::min(inner, end - i)) {
      ForwardChunk run = in_place(i, n);
      run.alpha = slopes_.of_channel(channel);
      loop_(run);
      if (++channel == channels) channel = 0;
    }
  }

  // Elements begin to begin + n as they lie in memory, without slopes.
  ForwardChunk in_place(int64_t begin, int64_t n) const {
    uint8_t* mask = args_.mask ? args_.mask + begin / 8 : nullptr;
    return {static_cast<const Bits*>(args_.x) + begin, static_cast<Bits*>(args_.y) + begin, n, 0, nullptr, mask};
  }

  void chunk(int64_t begin, int64_t n) const {
    alignas(64) Bits x_buffer[kChunk], y_buffer[kChunk];
    S slopes_buffer[kChunk];
    ForwardChunk chunk = in_place(begin, n);
    if (!args_.x_view.dense()) {
      gather(static_cast<const Bits*>(args_.x), args_.x_view, begin, n, x_buffer);
      chunk.x = x_buffer;
    }
    if (!args_.y_view.dense()) chunk.y = y_buffer;
    if (!uniform_) {
      chunk.alphas = slopes_.of_elements(begin, n, slopes_buffer);
    } else if (args_.formula != Formula::ReLU) {
      chunk.alpha = slopes_.of_channel(0);
    }
    loop_(chunk);
    if (!args_.y_view.dense()) scatter(y_buffer, args_.y_view, begin, n, static_cast<Bits*>(args_.y));
  }

  const ForwardArgs& args_;
  const Slopes<S>& slopes_;
  bool uniform_;
  bool runs_;
  ForwardLoop loop_;
};

template <typename S, typename Bits>
void forward_as(const ForwardArgs& args, ParallelFor parallel_for) {
  const Shape one;
  const Slopes<S> slopes(args.alpha, args.formula == Formula::ReLU ? one : args.shape);
  const Forward<S, Bits> forward(args, slopes);
  run_elements(parallel_for, args.shape.numel(), [&](int64_t begin, int64_t end) { forward.run(begin, end); });
}

}  // namespace

void forward(const ForwardArgs& args, ParallelFor parallel_for) {
  switch (args.dtype) {
    case DType::Float64:
      return forward_as<double, uint64_t>(args, parallel_for);
    case DType::Float32:
      return forward_as<float, uint32_t>(args, parallel_for);
    case DType::Float16:
    case DType::BFloat16:
      return forward_as<float, uint16_t>(args, parallel_for);
  }
}

}  // namespace leaky_ext::cpu
