// Runs the CUDA kernels on the host and compares them with the oracle; so the CPU kernels, where LEAKY_COMPARE_CPU says
// that they are linked.
//
//   runner CASES [SEED [SCALE]]      SCALE makes the larger shapes larger
#include "../../csrc/cuda/launch.h"
#include "../cpp/trial.h"

using namespace leaky_ext;
using namespace leaky_ext::test;

namespace {

Kernels cuda_kernels(int multiprocessors) {
  cuda::Launch launch;
  launch.multiprocessors = multiprocessors;
  const auto forward = [launch](const ForwardArgs& args) { cuda::forward(args, launch); };
  const auto backward = [launch](const BackwardArgs& args) {
    const size_t bytes = cuda::workspace_bytes(args, launch.multiprocessors);
    expect(bytes <= (1 << 20), "workspace", "backward", int64_t(bytes));
    const Buffer workspace(DType::Float64, int64_t(bytes / sizeof(double)));
    cuda::Launch with_workspace = launch;
    with_workspace.workspace = workspace.data();
    cuda::backward(args, with_workspace);
  };
  return {"CUDA", forward, backward, {backward}, 1e-6};
}

#ifdef LEAKY_COMPARE_CPU
Kernels cpu_kernels() {
  static constexpr auto serial = [](int64_t tasks, int64_t, void* context, cpu::Body body) {
    if (tasks > 0) body(context, 0, tasks);
  };
  return {"CPU",
          [](const ForwardArgs& args) { cpu::forward(args, serial); },
          [](const BackwardArgs& args) { cpu::backward(args, serial); },
          {},
          2e-7};
}
#endif

void no_kernel(int) {}

// A number of blocks that the grid's 32 bits cut to a valid one must not launch fewer than were asked for.
void check_too_many_blocks() {
  for (const int64_t blocks : {int64_t(1) << 31, (int64_t(1) << 32) + 1}) {
    bool thrown = false;
    try {
      cuda::launch_kernel("no_kernel", no_kernel, blocks, 0, {});
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    expect(thrown, "too many blocks", "launch_kernel", blocks);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 100;
  const uint64_t seed = argc > 2 ? uint64_t(std::atoll(argv[2])) : 0;
  const int64_t scale = argc > 3 ? std::atoll(argv[3]) : 1;
  check_too_many_blocks();
  for (int n = 0; n < cases; ++n) {
    Random random(seed * 1000003 + uint64_t(n));
    std::vector<Kernels> all{cuda_kernels(int(random.pick({1, 2, 5})))};
#ifdef LEAKY_COMPARE_CPU
    all.push_back(cpu_kernels());
#endif
    const Shape shape = any_shape(random, scale);
    (n % 2 ? try_backward : try_forward)(random, n / 2, shape, all);
  }
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures != 0;
}
