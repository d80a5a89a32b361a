// Forward on the CPU. Each thread processes a range of elements, in chunks.
#include "loops.h"
#include "parallel.h"
#include "slopes.h"
#include "strided.h"
#include "tuning.h"

namespace leaky_ext::cpu {
namespace {

template <typename T>
void forward_as(const ForwardArgs& args, ParallelFor parallel_for) {
  const Alpha none;  // ReLU does not read alpha
  const Slopes<Arithmetic<T>> slopes(args.formula == Formula::ReLU ? none : args.alpha, args.shape);
  const bool uniform = slopes.uniform(), dense = args.x_view.dense() && args.y_view.dense();
  const ForwardLoop loop = loops(args.dtype).forward[int(args.formula)][uniform ? kUniform : kPerElement];
  const double alpha = uniform ? slopes.of_channel(0) : 0;

  // Processes elements begin to begin + n.
  const auto run = [&](int64_t begin, int64_t n) {
    alignas(64) T x_buffer[kChunk], y_buffer[kChunk];
    Arithmetic<T> slopes_buffer[kChunk];
    const T* x = gather(args.x, args.x_view, begin, n, x_buffer);
    T* y = static_cast<T*>(args.y);
    const bool moved = !args.y_view.dense();
    loop({x, moved ? y_buffer : y + begin, n, alpha, uniform ? nullptr : slopes.of_elements(begin, n, slopes_buffer),
          args.mask ? args.mask + begin / 8 : nullptr});
    if (moved) scatter(y_buffer, args.y_view, begin, n, y);
  };
  run_elements(parallel_for, args.shape.numel(), [&](int64_t begin, int64_t end) {
    const int64_t step = uniform && dense ? end - begin : kChunk;
    for (int64_t i = begin; i < end; i += step) run(i, std::min(step, end - i));
  });
}

}  // namespace

void forward(const ForwardArgs& args, ParallelFor parallel_for) {
  with_type(args.dtype, [&](auto zero) { forward_as<decltype(zero)>(args, parallel_for); });
}

}  // namespace leaky_ext::cpu
