#include "native.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty_strided.h>

#include "checks.h"
#include "layout.h"

#if defined(LEAKY_WITH_CUDA)
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace leaky_ext::native {
namespace {

using at::IntArrayRef;
using at::Tensor;

// Sets data and view to a tensor, or to a copy if a StridedView cannot hold its dimensions. Returns the owner of data.
Tensor read_by_strides(const Tensor& tensor, const Order& order, const void** data, StridedView* view) {
  Tensor source = tensor;
  if (!order.view_of(tensor.strides(), view)) {
    source = at::empty_strided(order.sizes, order.strides, tensor.options()).copy_(tensor);
    *view = order.output;
  }
  *data = source.const_data_ptr();
  return source;
}

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
  const Tensor workspace = bytes ? new_tensor(x.options().dtype(at::kByte), {bytes}) : Tensor();
  if (bytes) launch.workspace = workspace.mutable_data_ptr();
  cuda::backward(args, launch);
#endif
}

// Computes the gradients of tensors with the order's sizes. Allocates grad_x if it is undefined.
Pair backward(BackwardArgs args, const Tensor& grad, const OptionalTensor& saved, const SlopeArg& slope,
              IntArrayRef sizes, const Order& order, Need need, Tensor grad_x) {
  const Tensor& like = saved ? *saved : grad;
  const KernelSlope kernel_slope(like, slope, sizes, order);
  args.shape = kernel_slope.shape;
  args.alpha = kernel_slope.alpha;
  const Tensor grad_read = read_by_strides(grad, order, &args.grad, &args.grad_view);
  const Tensor saved_read = saved ? read_by_strides(*saved, order, &args.saved, &args.saved_view) : Tensor();
  Tensor grad_alpha;
  if (need[1]) {  // before grad_x, as in forward
    grad_alpha = kernel_slope.new_grad(at::toOpMathType(grad.scalar_type()));
    args.grad_alpha = grad_alpha.mutable_data_ptr();
    args.grad_alpha_dtype = dtype_of(grad_alpha, "grad_alpha");
  }
  if (need[0]) {
    if (!grad_x.defined()) grad_x = new_tensor(grad.options(), order.sizes, order.strides);
    args.grad_x = grad_x.mutable_data_ptr();
  }
  args.output_view = order.output;
  if (need[0] || need[1]) run(like, args);
  if (need[1]) grad_alpha = kernel_slope.restore(grad_alpha);
  return {grad_x, grad_alpha};
}

}  // namespace

Pair forward(const Tensor& x, const SlopeArg& slope, int64_t formula, bool want_mask, bool in_place) {
  ForwardArgs args;
  args.dtype = dtype_of(x, "x");
  args.formula = formula_of(formula);
  const OptionalTensor none;
  const OptionalTensor& alpha = args.formula == Formula::ReLU ? none : slope.alpha;
  const Dims sizes = check_arguments(x, slope);
  const Order order(x.sizes(), x.strides(), alpha ? IntArrayRef(sizes) : IntArrayRef());
  if (in_place) {
    check_no_overlap(x);
    if (slope.alpha) at::assert_no_overlap(x, *slope.alpha);
    TORCH_CHECK(order.view_of(x.strides(), &args.y_view), "leaky_ext: x of shape ", x.sizes(), " and strides ",
                x.strides(), " has more than ", StridedView::kMaxDims,
                " dimensions that do not merge, so it cannot be changed in place: use the out-of-place function");
  } else {
    args.y_view = order.output;
  }
  const Pieces pieces(alpha, sizes, order);
  if (pieces.many() || (want_mask && !order.output.dense())) {
    // First copies x to y and writes the mask, in memory order; then computes y in place.
    Pair outputs = forward(x, {none, 1, slope.channel_dim}, int64_t(Formula::LeakyReLU), want_mask, in_place);
    for (int64_t begin = 0; begin < pieces.size; begin += pieces.step) {
      const OptionalTensor part = pieces.of(*slope.alpha, begin);
      forward(pieces.of(std::get<0>(outputs), begin), {part, slope.value, slope.channel_dim}, formula, false, true);
    }
    return outputs;
  }
  const KernelSlope kernel_slope(x, {alpha, slope.value, slope.channel_dim}, sizes, order);
  args.shape = kernel_slope.shape;
  args.alpha = kernel_slope.alpha;
  Tensor mask;
  if (want_mask) {  // before y, so that it does not split the memory that the next large tensor fits into
    mask = new_tensor(x.options().dtype(at::kByte), {mask_bytes(x.numel())});
    args.mask = mask.mutable_data_ptr<uint8_t>();
  }
  const Tensor y = in_place ? x : new_tensor(x.options(), x.sizes(), order.strides);
  args.y = y.mutable_data_ptr();
  const Tensor x_read = read_by_strides(x, order, &args.x, &args.x_view);
  run(x, args);
  return {y, mask};
}

Pair backward(const Tensor& grad, const OptionalTensor& saved, const OptionalTensor& mask, const OptionalTensor& alpha,
              const at::Scalar& value, int64_t channel_dim, int64_t kind, at::OptionalIntArrayRef stride, Need need) {
  const SlopeArg slope{alpha, value, channel_dim};
  BackwardArgs args;
  args.kind = saved_of(kind);
  check_saved(grad, saved, mask, stride, args.kind);
  need[1] = need[1] && alpha;
  TORCH_CHECK_VALUE(!need[1] || args.kind != Saved::Mask,
                    "leaky_ext: the gradient of alpha cannot be computed from the mask");
  // If only the mask was saved: stands for y, with grad's sizes and the given strides.
  const Tensor& like = saved ? *saved : grad;
  const auto contiguous = saved || stride ? std::vector<int64_t>() : at::detail::defaultStrides(grad.sizes());
  args.dtype = dtype_of(grad, "grad");
  if (mask) args.mask = mask->const_data_ptr<uint8_t>();
  Dims sizes = check_arguments(like, slope);
  if (need[1]) check_device(like, *alpha, "alpha, which needs a gradient,");
  const Order order(like.sizes(), saved ? saved->strides() : stride ? *stride : IntArrayRef(contiguous), sizes);
  const Pieces pieces(alpha, sizes, order);
  if (!pieces.many()) return backward(args, grad, saved, slope, sizes, order, need, {});

  const Tensor grad_x = need[0] ? new_tensor(grad.options(), order.sizes, order.strides) : Tensor();
  const Tensor grad_alpha = need[1] ? new_tensor(alpha->options(), alpha->sizes()) : Tensor();
  for (int64_t begin = 0; begin < pieces.size; begin += pieces.step) {
    BackwardArgs part = args;
    if (mask) part.mask += begin * order.strides[pieces.dim] / 8;
    sizes[pieces.dim] = pieces.length(begin);
    const OptionalTensor part_alpha = pieces.of(*alpha, begin);
    const OptionalTensor part_saved = saved ? OptionalTensor(pieces.of(*saved, begin)) : std::nullopt;
    const auto [_, sums] =
        backward(part, pieces.of(grad, begin), part_saved, {part_alpha, value, channel_dim}, sizes,
                 order.part(pieces.dim, sizes[pieces.dim]), need, need[0] ? pieces.of(grad_x, begin) : Tensor());
    if (need[1]) pieces.of(grad_alpha, begin).copy_(sums);
  }
  return {grad_x, grad_alpha};
}

}  // namespace leaky_ext::native
