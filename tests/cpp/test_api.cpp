// The C++ API against the same formulas in plain libtorch.
#include <leaky_ext.h>
#include <torch/torch.h>

#include <cstdio>

namespace {

int failures = 0;

void check(bool condition, const char* what) {
  if (condition) return;
  ++failures;
  std::printf("FAILED: %s\n", what);
}

torch::Tensor leaky(const torch::Tensor& x, const torch::Tensor& alpha) { return torch::where(x >= 0, x, alpha * x); }

using Function = torch::Tensor (*)(const torch::Tensor&, const torch::Tensor&, int64_t);

// Value and gradients, alpha learned or not, of one shape of slope.
void check_gradients(Function function, bool straight_through, const torch::Tensor& slope, bool learned) {
  const auto x = torch::randn({3, 5, 7}, torch::kFloat64).transpose(1, 2).requires_grad_();
  const auto expected_x = x.detach().clone().requires_grad_();
  const auto alpha = slope.clone().requires_grad_(learned);
  const auto expected_alpha = slope.clone().requires_grad_(learned);
  const auto grad = torch::randn_like(x);

  const auto y = function(x, alpha, -1);
  const auto surrogate = leaky(expected_x, expected_alpha);
  check(torch::equal(y, straight_through ? torch::relu(x) : surrogate), "the value");
  y.backward(grad);
  surrogate.backward(grad);
  check(torch::allclose(x.grad(), expected_x.grad(), 1e-15, 1e-15), "grad_x");
  check(alpha.grad().defined() == learned, "grad_alpha is there where it is wanted");
  if (learned) check(torch::allclose(alpha.grad(), expected_alpha.grad(), 1e-12, 1e-12), "grad_alpha");
}

// d/dx of the gradient's square, by x alone and by a slope that is learned.
void check_second_order(bool learned) {
  const auto values = torch::randn({3, 5}, torch::kFloat64);
  const auto slope = torch::full({1}, 0.25, torch::kFloat64);
  const auto second = [&](bool ours) {
    const auto x = values.clone().requires_grad_();
    const auto alpha = slope.clone().requires_grad_(learned);
    const auto y = ours ? leaky_ext::learnable_leaky_relu(x, alpha) : leaky(x, alpha);
    const auto first = torch::autograd::grad({y.pow(3).sum()}, {x}, {}, true, true)[0];
    return torch::autograd::grad({first.pow(2).sum()}, {learned ? alpha : x})[0];
  };
  check(torch::allclose(second(true), second(false), 1e-12, 1e-12), "the second derivative");
}

template <typename Call>
void check_throws(Call call, const char* what) {
  try {
    call();
  } catch (const c10::Error&) {
    return;
  }
  check(false, what);
}

}  // namespace

int main() {
  torch::manual_seed(0);
  for (const auto& slope : {torch::full({}, 0.3, torch::kFloat64), torch::linspace(-0.5, 0.5, 5, torch::kFloat64)}) {
    for (const bool learned : {false, true}) {
      check_gradients(leaky_ext::learnable_leaky_relu, false, slope, learned);
      check_gradients(leaky_ext::straight_through_relu, true, slope, learned);
    }
  }
  const auto x = torch::randn({100});
  const auto slope = torch::full({}, 0.25, torch::kFloat64);
  check(torch::equal(leaky_ext::learnable_leaky_relu(x, 0.25), leaky(x, slope)), "a slope that is a number");
  check(torch::equal(leaky_ext::straight_through_relu(x), torch::relu(x)), "the slope left out");
  check(!leaky_ext::learnable_leaky_relu(x, 0.25).requires_grad(),
        "nothing is recorded where nothing needs a gradient");

  for (const bool learned : {false, true}) check_second_order(learned);
  check_throws([&] { leaky_ext::learnable_leaky_relu(x, torch::ones({3})); }, "a slope that does not fit");
  check_throws([&] { leaky_ext::learnable_leaky_relu(x.to(torch::kInt), 0.25); }, "an integer tensor");
  std::printf("api: %s\n", failures ? "FAILED" : "passed");
  return failures != 0;
}
