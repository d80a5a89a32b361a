// Learns the slope of a leaky ReLU from its outputs, in C++:  cmake -B build -DCMAKE_PREFIX_PATH=... && cmake --build
// build
#include <leaky_ext.h>
#include <torch/torch.h>

#include <cmath>
#include <iostream>

int main() {
  torch::manual_seed(0);
  const torch::Tensor x = torch::randn({256, 8});
  const torch::Tensor slopes = torch::linspace(-0.2, 0.5, 8);  // one for each of 8 channels
  const torch::Tensor target = torch::where(x >= 0, x, slopes * x);

  torch::Tensor alpha = torch::full({8}, 0.01, torch::requires_grad());
  torch::optim::SGD optimizer({alpha}, torch::optim::SGDOptions(2.0));
  for (int step = 0; step <= 60; ++step) {
    optimizer.zero_grad();
    const torch::Tensor loss = (leaky_ext::learnable_leaky_relu(x, alpha) - target).square().mean();
    loss.backward();
    optimizer.step();
    if (step % 20 == 0) std::cout << "step " << step << ": loss " << loss.item<float>() << "\n";
  }

  const double error = (alpha - slopes).abs().max().item<double>();
  std::cout << "largest error of a slope: " << error << "\n";
  return std::isfinite(error) && error < 1e-3 ? 0 : 1;
}
