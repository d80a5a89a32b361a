#include "ops.h"

#include <ATen/EmptyTensor.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>

#include "checks.h"
#include "geometry.h"

#if defined(LEAKY_WITH_CUDA)
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace leaky_ext::ops {
namespace {

using at::IntArrayRef;
using at::Tensor;

// On the CPU without the dispatcher, which costs more than the allocation.
Tensor new_tensor(const Tensor& like, IntArrayRef sizes, IntArrayRef strides) {
  if (!like.is_cpu()) return at::empty_strided(sizes, strides, like.options());
  return at::detail::empty_strided_cpu(sizes, strides, like.scalar_type());
}

Tensor new_mask(const Tensor& like) {
  if (like.is_cpu()) return at::detail::empty_cpu({mask_bytes(like.numel())}, at::kByte);
  return at::empty({mask_bytes(like.numel())}, like.options().dtype(at::kByte).memory_format(std::nullopt));
}

// A tensor that the kernels read element by element, copied first where it is too scattered for a StridedView.
struct Operand {
  Tensor tensor;
  StridedView view;

  Operand(const Tensor& source, const Order& order) : tensor(source) {
    if (order.view_of(source.strides(), &view)) return;
    tensor = at::empty_strided(order.sizes, order.strides, source.options()).copy_(source);
    view = StridedView();
  }
};

// The slope as the kernels take it. Holds what the pointers point to.
struct KernelSlope {
  Shape shape;
  Alpha alpha;
  Dims sizes;
  std::optional<SlopeLayout> layout;

  KernelSlope(const Tensor& x, const SlopeArg& slope, const Order& order) {
    shape.inner = x.numel();
    if (!slope.tensor) {
      alpha.value = slope.value;
      return;
    }
    const Tensor& tensor = *slope.tensor;
    check_slope(x, tensor);
    sizes = slope_sizes(order.sizes, tensor, slope.channel_dim);
    layout.emplace(tensor, sizes, order);
    shape = layout->shape;
    alpha.dtype = dtype_of(tensor, "alpha");
    alpha.data = layout->slopes.const_data_ptr();
    if (tensor.is_cpu() && !x.is_cpu()) {  // a CPU scalar travels with the launch
      alpha.value = tensor.item().toDouble();
      alpha.data = nullptr;
    }
  }
};

void parallel_for(int64_t tasks, int64_t grain, void* context, cpu::Body body) {
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

#if defined(LEAKY_WITH_CUDA)
cuda::Launch current_launch() {
  cuda::Launch launch;
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  launch.stream = stream.stream();
  C10_CUDA_CHECK(
      cudaDeviceGetAttribute(&launch.multiprocessors, cudaDevAttrMultiProcessorCount, stream.device_index()));
  return launch;
}
#endif

void run(const Tensor& x, const ForwardArgs& args) {
  if (x.is_cpu()) return cpu::forward(args, parallel_for);
#if defined(LEAKY_WITH_CUDA)
  const c10::cuda::CUDAGuard guard(x.device());
  cuda::forward(args, current_launch());
#endif
}

void run(const Tensor& x, const BackwardArgs& args) {
  if (x.is_cpu()) return cpu::backward(args, parallel_for);
#if defined(LEAKY_WITH_CUDA)
  const c10::cuda::CUDAGuard guard(x.device());
  cuda::Launch launch = current_launch();
  const auto bytes = int64_t(cuda::workspace_bytes(args, launch.multiprocessors));
  const Tensor workspace = bytes ? at::empty({bytes}, x.options().dtype(at::kByte)) : Tensor();
  if (bytes) launch.workspace = workspace.mutable_data_ptr();
  cuda::backward(args, launch);
#endif
}

}  // namespace

Outputs forward(const Tensor& x, const SlopeArg& slope, ForwardOptions options) {
  ForwardArgs args;
  args.dtype = dtype_of(x, "x");
  args.formula = options.positive_zero ? Formula::LeakyReLUSigned : options.formula;
  const Order order(x.sizes(), x.strides());
  const KernelSlope kernel_slope(x, slope, order);
  args.shape = kernel_slope.shape;
  args.alpha = kernel_slope.alpha;
  Outputs outputs;
  if (options.in_place) {
    at::assert_no_internal_overlap(x);
    if (slope.tensor) at::assert_no_overlap(x, *slope.tensor);
    TORCH_CHECK(order.view_of(x.strides(), &args.y_view), "leaky_ext: x of shape ", x.sizes(), " and strides ",
                x.strides(), " is too scattered to be changed in place; use the out-of-place function");
    args.x_view = args.y_view;
    args.x = args.y = x.mutable_data_ptr();
    if (!x.is_inference()) x.unsafeGetTensorImpl()->bump_version();
    outputs.y = x;
    if (options.mask) args.mask = (outputs.mask = new_mask(x)).mutable_data_ptr<uint8_t>();
    run(x, args);
    return outputs;
  }
  const Operand operand(x, order);
  args.x = operand.tensor.const_data_ptr();
  args.x_view = operand.view;
  outputs.y = new_tensor(x, x.sizes(), order.strides);
  args.y = outputs.y.mutable_data_ptr();
  if (options.mask) args.mask = (outputs.mask = new_mask(x)).mutable_data_ptr<uint8_t>();
  run(x, args);
  return outputs;
}

namespace {

// What a backward was handed: grad, and what is left of x.
struct Kept {
  Saved kind = Saved::Input;
  const Tensor* tensor = nullptr;  // x or y; where there is the mask alone, grad
  IntArrayRef strides;             // of x or y
  const Tensor* mask = nullptr;
};

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Kept& kept, const SlopeArg& slope, bool need_x,
                                    bool need_alpha) {
  const Tensor& like = *kept.tensor;
  BackwardArgs args;
  args.dtype = dtype_of(grad, "grad");
  args.kind = kept.kind;
  const Order order(like.sizes(), kept.strides);
  const KernelSlope kernel_slope(like, slope, order);
  args.shape = kernel_slope.shape;
  args.alpha = kernel_slope.alpha;
  const Operand grad_operand(grad, order);
  args.grad = grad_operand.tensor.const_data_ptr();
  args.grad_view = grad_operand.view;
  std::optional<Operand> saved;
  if (kept.kind != Saved::Mask) {
    saved.emplace(like, order);
    args.saved = saved->tensor.const_data_ptr();
    args.saved_view = saved->view;
  }
  if (kept.mask) args.mask = kept.mask->const_data_ptr<uint8_t>();

  Tensor grad_x, grad_alpha;
  if (need_x) {
    grad_x = new_tensor(grad, like.sizes(), order.strides);
    args.grad_x = grad_x.mutable_data_ptr();
  }
  if (need_alpha) {
    const at::ScalarType opmath = args.dtype == DType::Float64 ? at::kDouble : at::kFloat;
    check_device(like, *slope.tensor, "alpha, which needs a gradient,");
    grad_alpha = kernel_slope.layout->new_grad(*slope.tensor, order, opmath);
    args.grad_alpha = grad_alpha.mutable_data_ptr();
    args.grad_alpha_dtype = dtype_of(grad_alpha, "grad_alpha");
  }
  if (need_x || need_alpha) run(like, args);
  if (need_alpha) grad_alpha = kernel_slope.layout->restore(grad_alpha, *slope.tensor, order);
  return {grad_x, grad_alpha};
}

}  // namespace

std::tuple<Tensor, Tensor> backward_input(const Tensor& grad, const Tensor& x, const SlopeArg& slope, bool need_x,
                                          bool need_alpha) {
  check_like(x, grad, "x");
  return backward(grad, {Saved::Input, &x, x.strides(), nullptr}, slope, need_x, need_alpha);
}

Tensor backward_mask(const Tensor& grad, const Tensor& mask, const SlopeArg& slope, IntArrayRef stride) {
  check_mask(grad, mask);
  TORCH_CHECK_VALUE(int64_t(stride.size()) == grad.dim(), "leaky_ext: stride ", stride, " does not fit grad of shape ",
                    grad.sizes());
  return std::get<0>(backward(grad, {Saved::Mask, &grad, stride, &mask}, slope, true, false));
}

std::tuple<Tensor, Tensor> backward_output(const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask,
                                           const SlopeArg& slope, bool need_x, bool need_alpha) {
  check_like(y, grad, "y");
  if (!mask) return backward(grad, {Saved::Output, &y, y.strides(), nullptr}, slope, need_x, need_alpha);
  check_mask(y, *mask);
  return backward(grad, {Saved::OutputAndMask, &y, y.strides(), &*mask}, slope, need_x, need_alpha);
}

}  // namespace leaky_ext::ops
