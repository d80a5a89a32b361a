// Adds up the partial sums of d(alpha), in a fixed order.
#include "reduction.cuh"

namespace leaky_ext::cuda {
namespace {

struct Combine {
  const double* partials;
  GradAlpha grad_alpha;
  int64_t channels;
  int rows, span;
  int lanes;  // threads that share a channel, a power of two
};

__global__ void __launch_bounds__(kThreads) combine_kernel(const Combine p) {
  __shared__ double sums[kThreads];
  const int t = int(threadIdx.x);
  const int block_channels = kThreads / p.lanes;
  const int lane = t / block_channels;
  const int64_t channel = int64_t(blockIdx.x) * block_channels + t % block_channels;
  double sum = 0;
  if (channel < p.channels) {
    for (int n = lane; n < p.rows * p.span; n += p.lanes) {
      const int row = n / p.span;
      sum += p.partials[(row * p.channels + channel) * p.span + (n - row * p.span)];
    }
  }
  sums[t] = sum;
  for (int step = p.lanes / 2; step > 0; step /= 2) {
    __syncthreads();
    if (lane < step) sums[t] += sums[t + step * block_channels];
  }
  if (lane == 0 && channel < p.channels) p.grad_alpha.store(channel, sums[t]);
}

}  // namespace

void combine(const BackwardArgs& args, const ReductionPlan& plan, const Launch& launch) {
  Combine p{static_cast<const double*>(launch.workspace),
            {args.grad_alpha, args.grad_alpha_dtype},
            args.shape.channels,
            int(plan.partial_rows),
            int(plan.span),
            1};
  while (p.lanes < kThreads && p.lanes * 8 < p.rows * p.span) p.lanes *= 2;
  launch_kernel("combine", combine_kernel, ceil_div(p.channels, kThreads / p.lanes), p, launch);
}

}  // namespace leaky_ext::cuda
