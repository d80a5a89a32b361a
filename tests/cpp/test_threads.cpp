// Eight threads call the kernels at once, each with threads of its own; for a thread sanitizer, and for its own check
// that concurrent calls give what a single one gives.
#include "support.h"

namespace leaky_ext::test {
namespace {

constexpr int64_t kElements = 100'000;

struct Results {
  std::vector<float> y, grad_x;
  std::vector<uint8_t> mask;
  float grad_alpha = 0;

  bool operator==(const Results& other) const {
    return y == other.y && grad_x == other.grad_x && mask == other.mask && grad_alpha == other.grad_alpha;
  }
};

Results call(const std::vector<float>& x, const std::vector<float>& grad, const float* slope) {
  Results results;
  results.y.resize(kElements);
  results.grad_x.resize(kElements);
  results.mask.resize((kElements + 7) / 8);
  ForwardArgs forward;
  forward.shape.inner = kElements;
  forward.x = x.data();
  forward.y = results.y.data();
  forward.mask = results.mask.data();
  forward.alpha = {slope, DType::Float32};
  cpu::forward(forward, parallel_for);
  BackwardArgs backward;
  backward.shape.inner = kElements;
  backward.grad = grad.data();
  backward.saved = x.data();
  backward.alpha = {slope, DType::Float32};
  backward.grad_x = results.grad_x.data();
  backward.grad_alpha = &results.grad_alpha;
  cpu::backward(backward, parallel_for);
  return results;
}

void check_concurrent_calls() {
  std::vector<float> x(kElements), grad(kElements);
  Random random(0);
  for (float& value : x) value = float(random.normal());
  for (float& value : grad) value = float(random.normal());
  const float slope = 0.25f;
  threads = 2;
  std::vector<Results> results(8);
  std::vector<std::thread> callers;
  for (Results& result : results) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 20; ++repeat) result = call(x, grad, &slope);
    });
  }
  for (std::thread& caller : callers) caller.join();
  const Results alone = call(x, grad, &slope);
  for (const Results& result : results) expect(result == alone, "a concurrent call", "other results than alone");
}

}  // namespace
}  // namespace leaky_ext::test

int main() { return leaky_ext::test::run("threads", leaky_ext::test::check_concurrent_calls); }
