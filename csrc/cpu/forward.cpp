// Forward on the CPU: the elements are cut into chunks, and threads take ranges of them.
#include "chunk.h"
#include "parallel.h"
#include "slopes.h"
#include "stores.h"
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
        loop_(loops(args.dtype).forward[int(args.formula)][uniform_ ? kUniform : kPerElement]),
        stream_(args.y != args.x && goes_around_cache(2, args.y, args.shape.numel() * int64_t(sizeof(Bits)))) {}

  // Elements begin to end; begin is a multiple of kChunk.
  void run(int64_t begin, int64_t end) const {
    const bool whole = uniform_ && args_.x_view.dense() && args_.y_view.dense();
    const int64_t step = whole ? end - begin : kChunk;
    for (int64_t i = begin; i < end; i += step) chunk(i, std::min(step, end - i));
    if (stream_) finish_stores();
  }

 private:
  void chunk(int64_t begin, int64_t n) const {
    alignas(64) Bits x_buffer[kChunk], y_buffer[kChunk];
    S slopes_buffer[kChunk];
    const Bits* x = static_cast<const Bits*>(args_.x);
    Bits* y = static_cast<Bits*>(args_.y);
    ForwardChunk chunk{x + begin, y + begin, n, 0, nullptr, nullptr, stream_};
    if (!args_.x_view.dense()) {
      gather(x, args_.x_view, begin, n, x_buffer);
      chunk.x = x_buffer;
    }
    if (!args_.y_view.dense()) chunk.y = y_buffer;
    if (args_.mask) chunk.mask = args_.mask + begin / 8;
    if (!uniform_) {
      chunk.alphas = slopes_.of_elements(begin, n, slopes_buffer);
    } else if (args_.formula != Formula::ReLU) {
      chunk.alpha = slopes_.of_channel(0);
    }
    loop_(chunk);
    if (!args_.y_view.dense()) scatter(y_buffer, args_.y_view, begin, n, y);
  }

  const ForwardArgs& args_;
  const Slopes<S>& slopes_;
  bool uniform_;
  ForwardLoop loop_;
  bool stream_;
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
    default:
      return forward_as<float, uint16_t>(args, parallel_for);
  }
}

}  // namespace leaky_ext::cpu
