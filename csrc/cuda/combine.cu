// Adds the partial sums of d(alpha), in a fixed order.
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

constexpr int kLoads = 8;  // in flight, per thread

struct Combine {
  const double* partials;
  Sums sums;  // the gradient
  int64_t channels;
  int count;  // partial sums per channel
  Divider<uint32_t> span;
  int lanes;  // threads that share a channel, a power of two

  __device__ __forceinline__ double partial(int64_t channel, int n) const {
    if (n >= count) return 0;
    const int row = int(span.divide(n));
    return partials[(row * channels + channel) * span.divisor + (n - row * int(span.divisor))];
  }
};

__global__ void __launch_bounds__(kThreads) combine_kernel(const Combine p) {
  __shared__ double sums[kThreads];
  const int t = int(threadIdx.x);
  const int block_channels = kThreads / p.lanes;
  const int lane = t / block_channels;
  const int64_t channel = int64_t(blockIdx.x) * block_channels + t % block_channels;
  double sum = 0;
  if (channel < p.channels) {
    for (int first = lane; first < p.count; first += kLoads * p.lanes) {
      double part[kLoads];
#pragma unroll
      for (int u = 0; u < kLoads; ++u) part[u] = p.partial(channel, first + u * p.lanes);
      sum += tree_sum(part);
    }
  }
  sums[t] = sum;
  for (int step = p.lanes / 2; step > 0; step /= 2) {
    __syncthreads();
    if (lane < step) sums[t] += sums[t + step * block_channels];
  }
  if (lane == 0 && channel < p.channels) p.sums.store(0, channel, sums[t]);
}

}  // namespace

void combine(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  Combine p{static_cast<const double*>(launch.workspace), Sums(args, ReductionPlan(), launch), args.shape.channels,
            int(plan.partial_rows * plan.span),           Divider<uint32_t>(plan.span),        1};
  while (p.lanes < kThreads && p.lanes * kLoads < p.count) p.lanes *= 2;
  launch_kernel("combine", combine_kernel, ceil_div(p.channels, kThreads / p.lanes), p, launch);
}

}  // namespace leaky_ext::cuda
