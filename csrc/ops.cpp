// The operators: schemas, checks, allocation, and the way from tensors to the kernels. Everything with tensors is here.
#include <ATen/Dispatch.h>
#include <ATen/EmptyTensor.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <torch/library.h>

#include "geometry.h"
#include "kernels.h"
#include "ops.h"

#if defined(LEAKY_WITH_CUDA)
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace leaky_ext {
namespace {

using at::IntArrayRef;
using at::Tensor;

DType dtype_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DType::Float64;
    case at::kFloat:
      return DType::Float32;
    case at::kHalf:
      return DType::Float16;
    case at::kBFloat16:
      return DType::BFloat16;
    default:
      TORCH_CHECK_TYPE(false, "leaky_ext: ", name, " must be float64, float32, float16 or bfloat16, got ",
                       tensor.scalar_type());
  }
}

// alpha's sizes with 1 for each dimension that it lacks, or nothing where it has one element.
Dims slope_sizes(IntArrayRef x, const Tensor& alpha, int64_t channel_dim) {
  if (alpha.numel() == 1) return {};
  const int64_t ndim = int64_t(x.size());
  if (alpha.dim() == 1 && ndim > 1) {
    TORCH_CHECK_INDEX(channel_dim >= -ndim && channel_dim < ndim, "leaky_ext: channel_dim ", channel_dim,
                      " is out of range for x of shape ", x);
    const int64_t channel = channel_dim < 0 ? channel_dim + ndim : channel_dim;
    TORCH_CHECK_VALUE(alpha.numel() == x[channel], "leaky_ext: alpha of shape ", alpha.sizes(), " needs ",
                      alpha.numel(), " channels, but x of shape ", x, " has ", x[channel], " in dimension ",
                      channel_dim);
    Dims sizes(size_t(ndim), 1);
    sizes[channel] = alpha.numel();
    return sizes;
  }
  bool fits = alpha.dim() == ndim;
  for (int64_t d = 0; fits && d < ndim; ++d) fits = alpha.size(d) == 1 || alpha.size(d) == x[d];
  TORCH_CHECK_VALUE(fits, "leaky_ext: alpha of shape ", alpha.sizes(), " does not fit x of shape ", x,
                    ": it must have one element, one for each channel, or broadcast in as many dimensions as x");
  return Dims(alpha.sizes().begin(), alpha.sizes().end());
}

void check_device(const Tensor& x, const Tensor& other, const char* name) {
  TORCH_CHECK(other.device() == x.device(), "leaky_ext: ", name, " is on ", other.device(), ", but x is on ",
              x.device());
}

void check_slope(const Tensor& x, const Tensor& alpha) {
  dtype_of(alpha, "alpha");
  const bool scalar = alpha.numel() == 1 && alpha.is_cpu() && !alpha.requires_grad();
  if (!scalar) check_device(x, alpha, "alpha");
}

void check_like(const Tensor& x, const Tensor& grad, const char* name) {
  TORCH_CHECK_VALUE(grad.sizes() == x.sizes(), "leaky_ext: grad has shape ", grad.sizes(), ", but ", name,
                    " has shape ", x.sizes());
  TORCH_CHECK_TYPE(grad.scalar_type() == x.scalar_type(), "leaky_ext: grad is ", grad.scalar_type(), ", but ", name,
                   " is ", x.scalar_type());
  check_device(x, grad, "grad");
}

int64_t mask_bytes(int64_t numel) { return (numel + 7) / 8; }

void check_mask(const Tensor& x, const Tensor& mask) {
  TORCH_CHECK_TYPE(mask.scalar_type() == at::kByte, "leaky_ext: mask must be uint8, got ", mask.scalar_type());
  TORCH_CHECK_VALUE(mask.dim() == 1 && mask.is_contiguous() && mask.numel() == mask_bytes(x.numel()),
                    "leaky_ext: mask of ", mask.sizes(), " does not fit ", x.numel(), " elements: it must have ",
                    mask_bytes(x.numel()), " contiguous bytes");
  check_device(x, mask, "mask");
}

// On the CPU without the dispatcher, which costs more than the allocation.
Tensor new_tensor(const Tensor& like, IntArrayRef sizes, IntArrayRef strides) {
  if (!like.is_cpu()) return at::empty_strided(sizes, strides, like.options());
  return at::detail::empty_strided_cpu(sizes, strides, like.scalar_type());
}

Tensor new_mask(const Tensor& like) {
  if (like.is_cpu()) return at::detail::empty_cpu({mask_bytes(like.numel())}, at::kByte);
  return at::empty({mask_bytes(like.numel())}, like.options().dtype(at::kByte).memory_format(std::nullopt));
}

// What a slope argument was: a tensor with its channel_dim, or a float.
struct Slope {
  const Tensor* tensor = nullptr;
  int64_t channel_dim = 1;
  double value = 0;
};

// A tensor that the kernels read element by element, copied first where it is too scattered for a Walk.
struct Operand {
  Tensor tensor;
  Walk walk;

  Operand(const Tensor& source, const Order& order) : tensor(source) {
    if (order.walk(source.strides(), &walk)) return;
    tensor = at::empty_strided(order.sizes, order.strides, source.options()).copy_(source);
    walk = Walk();
  }
};

// The slope as the kernels take it. Holds what the pointers point to.
struct KernelSlope {
  Shape shape;
  Alpha alpha;
  Dims sizes;
  std::optional<SlopeLayout> layout;

  KernelSlope(const Tensor& x, const Slope& slope, const Order& order) {
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

void parallel_for(int64_t tasks, void* context, cpu::Body body) {
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) { body(context, begin, end); });
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

struct ForwardOptions {
  Formula formula = Formula::LeakyReLU;
  bool mask = false, in_place = false, positive_zero = false;
};

struct Outputs {
  Tensor y, mask;
};

Outputs forward(const Tensor& x, const Slope& slope, ForwardOptions options) {
  ForwardArgs args;
  args.dtype = dtype_of(x, "x");
  args.formula = options.formula;
  args.positive_zero = options.positive_zero;
  const Order order(x.sizes(), x.strides());
  const KernelSlope kernel_slope(x, slope, order);
  args.shape = kernel_slope.shape;
  args.alpha = kernel_slope.alpha;
  Outputs outputs;
  if (options.in_place) {
    at::assert_no_internal_overlap(x);
    if (slope.tensor) at::assert_no_overlap(x, *slope.tensor);
    TORCH_CHECK(order.walk(x.strides(), &args.y_walk), "leaky_ext: x of shape ", x.sizes(), " and strides ",
                x.strides(), " is too scattered to be changed in place; use the out-of-place function");
    args.x_walk = args.y_walk;
    args.x = args.y = x.mutable_data_ptr();
    if (!x.is_inference()) x.unsafeGetTensorImpl()->bump_version();
    outputs.y = x;
    if (options.mask) args.mask = (outputs.mask = new_mask(x)).mutable_data_ptr<uint8_t>();
    run(x, args);
    return outputs;
  }
  const Operand operand(x, order);
  args.x = operand.tensor.const_data_ptr();
  args.x_walk = operand.walk;
  outputs.y = new_tensor(x, x.sizes(), order.strides);
  args.y = outputs.y.mutable_data_ptr();
  if (options.mask) args.mask = (outputs.mask = new_mask(x)).mutable_data_ptr<uint8_t>();
  run(x, args);
  return outputs;
}

// What a backward was handed: grad, and what is left of x.
struct Kept {
  Saved kind = Saved::Input;
  const Tensor* tensor = nullptr;  // x or y; where there is the mask alone, grad
  IntArrayRef strides;             // of x or y
  const Tensor* mask = nullptr;
};

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Kept& kept, const Slope& slope, bool need_x,
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
  args.grad_walk = grad_operand.walk;
  std::optional<Operand> saved;
  if (kept.kind != Saved::Mask) {
    saved.emplace(like, order);
    args.saved = saved->tensor.const_data_ptr();
    args.saved_walk = saved->walk;
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

std::tuple<Tensor, Tensor> backward_input(const Tensor& grad, const Tensor& x, const Slope& slope, bool need_x,
                                          bool need_alpha) {
  check_like(x, grad, "x");
  return backward(grad, {Saved::Input, &x, x.strides(), nullptr}, slope, need_x, need_alpha);
}

Tensor backward_mask(const Tensor& grad, const Tensor& mask, const Slope& slope, IntArrayRef stride) {
  check_mask(grad, mask);
  TORCH_CHECK_VALUE(int64_t(stride.size()) == grad.dim(), "leaky_ext: stride ", stride, " does not fit grad of shape ",
                    grad.sizes());
  return std::get<0>(backward(grad, {Saved::Mask, &grad, stride, &mask}, slope, true, false));
}

std::tuple<Tensor, Tensor> backward_output(const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask,
                                           const Slope& slope, bool need_x, bool need_alpha) {
  check_like(y, grad, "y");
  if (!mask) return backward(grad, {Saved::Output, &y, y.strides(), nullptr}, slope, need_x, need_alpha);
  check_mask(y, *mask);
  return backward(grad, {Saved::OutputAndMask, &y, y.strides(), &*mask}, slope, need_x, need_alpha);
}

constexpr ForwardOptions kReLU{Formula::ReLU};
constexpr ForwardOptions kReLUMask{Formula::ReLU, true};
constexpr ForwardOptions kMask{Formula::LeakyReLU, true};

ForwardOptions in_place(ForwardOptions options, bool positive_zero = false) {
  options.in_place = true;
  options.positive_zero = positive_zero;
  return options;
}

std::tuple<Tensor, Tensor> pair(Outputs outputs) { return {std::move(outputs.y), std::move(outputs.mask)}; }

// One registration for every device that the kernels know.
void implement(torch::Library& m) {
  m.impl("learnable_leaky_relu", [](const Tensor& x, const Tensor& alpha, int64_t dim, bool positive_zero) {
    return forward(x, {&alpha, dim}, {Formula::LeakyReLU, false, false, positive_zero}).y;
  });
  m.impl("learnable_leaky_relu.Scalar",
         [](const Tensor& x, double alpha) { return forward(x, {nullptr, 1, alpha}, {}).y; });
  m.impl("learnable_leaky_relu_", [](const Tensor& x, const Tensor& alpha, int64_t dim, bool positive_zero) {
    forward(x, {&alpha, dim}, in_place({}, positive_zero));
  });
  m.impl("learnable_leaky_relu_.Scalar",
         [](const Tensor& x, double alpha) { forward(x, {nullptr, 1, alpha}, in_place({})); });
  m.impl("learnable_leaky_relu_mask",
         [](const Tensor& x, const Tensor& alpha, int64_t dim) { return pair(forward(x, {&alpha, dim}, kMask)); });
  m.impl("learnable_leaky_relu_mask.Scalar",
         [](const Tensor& x, double alpha) { return pair(forward(x, {nullptr, 1, alpha}, kMask)); });
  m.impl("learnable_leaky_relu_mask_", [](const Tensor& x, const Tensor& alpha, int64_t dim) {
    return forward(x, {&alpha, dim}, in_place(kMask)).mask;
  });
  m.impl("learnable_leaky_relu_mask_.Scalar",
         [](const Tensor& x, double alpha) { return forward(x, {nullptr, 1, alpha}, in_place(kMask)).mask; });
  m.impl("straight_through_relu", [](const Tensor& x) { return forward(x, {}, kReLU).y; });
  m.impl("straight_through_relu_", [](const Tensor& x) { forward(x, {}, in_place(kReLU)); });
  m.impl("straight_through_relu_mask", [](const Tensor& x) { return pair(forward(x, {}, kReLUMask)); });
  m.impl("straight_through_relu_mask_", [](const Tensor& x) { return forward(x, {}, in_place(kReLUMask)).mask; });

  using OutputMask = std::array<bool, 2>;
  m.impl("backward", [](const Tensor& grad, const Tensor& x, const Tensor& alpha, int64_t dim, OutputMask need) {
    return backward_input(grad, x, {&alpha, dim}, need[0], need[1]);
  });
  m.impl("backward.Scalar", [](const Tensor& grad, const Tensor& x, double alpha) {
    return std::get<0>(backward_input(grad, x, {nullptr, 1, alpha}, true, false));
  });
  m.impl("backward_mask", [](const Tensor& grad, const Tensor& mask, const Tensor& alpha, int64_t dim,
                             IntArrayRef stride) { return backward_mask(grad, mask, {&alpha, dim}, stride); });
  m.impl("backward_mask.Scalar", [](const Tensor& grad, const Tensor& mask, double alpha, IntArrayRef stride) {
    return backward_mask(grad, mask, {nullptr, 1, alpha}, stride);
  });
  m.impl("backward_output",
         [](const Tensor& grad, const Tensor& y, const std::optional<Tensor>& mask, const Tensor& alpha, int64_t dim,
            OutputMask need) { return backward_output(grad, y, mask, {&alpha, dim}, need[0], need[1]); });
}

constexpr const char* kSchemas[] = {
    "learnable_leaky_relu(Tensor x, Tensor alpha, int channel_dim=1, *, bool positive_zero=False) -> Tensor",
    "learnable_leaky_relu.Scalar(Tensor x, float alpha) -> Tensor",
    "learnable_leaky_relu_(Tensor(a!) x, Tensor alpha, int channel_dim=1, *, bool positive_zero=False) -> ()",
    "learnable_leaky_relu_.Scalar(Tensor(a!) x, float alpha) -> ()",
    "learnable_leaky_relu_mask(Tensor x, Tensor alpha, int channel_dim=1) -> (Tensor y, Tensor mask)",
    "learnable_leaky_relu_mask.Scalar(Tensor x, float alpha) -> (Tensor y, Tensor mask)",
    "learnable_leaky_relu_mask_(Tensor(a!) x, Tensor alpha, int channel_dim=1) -> Tensor",
    "learnable_leaky_relu_mask_.Scalar(Tensor(a!) x, float alpha) -> Tensor",
    "straight_through_relu(Tensor x) -> Tensor",
    "straight_through_relu_(Tensor(a!) x) -> ()",
    "straight_through_relu_mask(Tensor x) -> (Tensor y, Tensor mask)",
    "straight_through_relu_mask_(Tensor(a!) x) -> Tensor",
    "backward(Tensor grad, Tensor x, Tensor alpha, int channel_dim, bool[2] output_mask) "
    "-> (Tensor grad_x, Tensor grad_alpha)",
    "backward.Scalar(Tensor grad, Tensor x, float alpha) -> Tensor",
    "backward_mask(Tensor grad, Tensor mask, Tensor alpha, int channel_dim, SymInt[] stride) -> Tensor",
    "backward_mask.Scalar(Tensor grad, Tensor mask, float alpha, SymInt[] stride) -> Tensor",
    "backward_output(Tensor grad, Tensor y, Tensor? mask, Tensor alpha, int channel_dim, bool[2] output_mask) "
    "-> (Tensor grad_x, Tensor grad_alpha)",
};

// The raw operators have no derivatives of their own: a gradient that would be lost in silence is refused here.
void refuse_autograd(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  if (at::GradMode::is_enabled()) {
    for (const c10::IValue& argument : torch::jit::last(*stack, op.schema().arguments().size())) {
      TORCH_CHECK(!argument.isTensor() || !argument.toTensor().requires_grad(), op.schema().operator_name(),
                  " is not differentiable: call leaky_ext.learnable_leaky_relu or leaky_ext.straight_through_relu, "
                  "which are, or use torch.no_grad()");
    }
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
}

#if !defined(LEAKY_WITH_CUDA)
void refuse_cuda(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK(false, op.schema().operator_name(),
              ": leaky_ext was built without CUDA. Build it where nvcc is found, with a torch that has CUDA, "
              "or with FORCE_CUDA=1");
}
#endif

template <typename Make>
void implement_all(torch::Library& m, Make make) {
  for (const std::string schema : kSchemas) m.impl(schema.substr(0, schema.find('(')).c_str(), make());
}

}  // namespace

void check_alpha(const Tensor& x, const Tensor& alpha, int64_t channel_dim) {
  dtype_of(x, "x");
  check_slope(x, alpha);
  slope_sizes(x.sizes(), alpha, channel_dim);
}

bool alpha_is_positive(const Tensor& alpha) {
  const Tensor slopes = alpha.contiguous();
  bool result = true;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, slopes.scalar_type(), "alpha_is_positive", [&] {
    const auto* values = slopes.const_data_ptr<scalar_t>();
    result = std::all_of(values, values + slopes.numel(), [](scalar_t value) { return value > scalar_t(0); });
  });
  return result;
}

}  // namespace leaky_ext

TORCH_LIBRARY(leaky_ext, m) {
  for (const char* schema : leaky_ext::kSchemas) m.def(schema);
}

TORCH_LIBRARY_IMPL(leaky_ext, CPU, m) { leaky_ext::implement(m); }

TORCH_LIBRARY_IMPL(leaky_ext, CUDA, m) {
#if defined(LEAKY_WITH_CUDA)
  leaky_ext::implement(m);
#else
  leaky_ext::implement_all(m, [] { return torch::CppFunction::makeFromBoxedFunction<&leaky_ext::refuse_cuda>(); });
#endif
}

TORCH_LIBRARY_IMPL(leaky_ext, Autograd, m) {
  leaky_ext::implement_all(m, [] { return torch::CppFunction::makeFromBoxedFunction<&leaky_ext::refuse_autograd>(); });
}
