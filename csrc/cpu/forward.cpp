// Forward on the CPU: the elements are cut into chunks, and threads take ranges of them.
#include "chunk.h"
#include "parallel.h"
#include "slopes.h"
#include "strided.h"
#include "tuning.h"

namespace leaky_ext::cpu {
namespace {

template <typename S, typename Bits>  // the type of the arithmetic, and of an element's bits
void forward_as(const ForwardArgs& args, ParallelFor parallel_for) {
  const Shape one;
  const bool relu = args.formula == Formula::ReLU;
  const Slopes<S> slopes(args.alpha, relu ? one : args.shape);
  const bool uniform = slopes.uniform(), dense = args.x_view.dense() && args.y_view.dense();
  const ForwardLoop loop = loops(args.dtype).forward[int(args.formula)][uniform ? kUniform : kPerElement];
  const double alpha = uniform && !relu ? slopes.of_channel(0) : 0;

  // Processes elements begin to begin + n.
  const auto run = [&](int64_t begin, int64_t n) {
    alignas(64) Bits x_buffer[kChunk], y_buffer[kChunk];
    S slopes_buffer[kChunk];
    const Bits* x = static_cast<const Bits*>(args.x);
    Bits* y = static_cast<Bits*>(args.y);
    ForwardChunk chunk{x + begin, y + begin, n, alpha, nullptr, args.mask ? args.mask + begin / 8 : nullptr};
    if (!args.x_view.dense()) {
      gather(x, args.x_view, begin, n, x_buffer);
      chunk.x = x_buffer;
    }
    if (!args.y_view.dense()) chunk.y = y_buffer;
    if (!uniform) chunk.alphas = slopes.of_elements(begin, n, slopes_buffer);
    loop(chunk);
    if (!args.y_view.dense()) scatter(y_buffer, args.y_view, begin, n, y);
  };
  run_elements(parallel_for, args.shape.numel(), [&](int64_t begin, int64_t end) {
    const int64_t step = uniform && dense ? end - begin : kChunk;
    for (int64_t i = begin; i < end; i += step) run(i, std::min(step, end - i));
  });
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
