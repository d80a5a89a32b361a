// Replaces the CUDA runtime under the project's host code. It launches nothing, and reports each launch to project.py:
// the kernel's name on the device, the grid, and the addresses of its parameters.
//
// nvcc's host code registers the host stub and the device name of each kernel.
#include <cuda_runtime.h>

#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels.h"

using namespace leaky_ext;

// ---------------------------------------------------------------------------------------------------------------------
// Checks that kernels.h has the fields that are set below, and no others

namespace {

struct ConvertibleToAny {
  template <typename T>
  operator T() const;
};

template <typename T, typename Fields, typename = void>
struct HasAtLeast : std::false_type {};
template <typename T, size_t... k>
struct HasAtLeast<T, std::index_sequence<k...>, std::void_t<decltype(T{(void(k), ConvertibleToAny())...})>>
    : std::true_type {};

template <typename T, size_t n>
constexpr bool has_fields =
    HasAtLeast<T, std::make_index_sequence<n>>::value && !HasAtLeast<T, std::make_index_sequence<n + 1>>::value;

static_assert(has_fields<ForwardArgs, 9>, "kernels.h: the fields of ForwardArgs are not those that recorder.cpp sets");
static_assert(has_fields<BackwardArgs, 13>,
              "kernels.h: the fields of BackwardArgs are not those that recorder.cpp sets");
static_assert(has_fields<Alpha, 3>, "kernels.h: the fields of Alpha are not those that recorder.cpp sets");
static_assert(has_fields<Shape, 3>, "kernels.h: the fields of Shape are not those that recorder.cpp sets");
static_assert(has_fields<cuda::Launch, 3>,
              "kernels.h: the fields of cuda::Launch are not those that recorder.cpp sets");
static_assert(sizeof(StridedView) == (1 + 2 * StridedView::kMaxDims) * sizeof(int64_t) && StridedView::kMaxDims == 8,
              "kernels.h: the fields of StridedView are not those that recorder.cpp sets");

// ---------------------------------------------------------------------------------------------------------------------
// The arguments of a call, as in project.py: every field has 8 bytes

struct Operand {
  int64_t address, ndim, size[8], stride[8];
};

struct Call {
  int64_t dtype, outer, channels, inner, multiprocessors, workspace;
  int64_t alpha, alpha_dtype;
  double alpha_value;
  int64_t mask;
  // forward
  int64_t formula;
  Operand x, y;
  // backward
  int64_t kind;
  Operand grad, saved, grad_x;
  int64_t grad_alpha, grad_alpha_dtype;
};

constexpr DType kTypes[] = {DType::Float64, DType::Float32, DType::Float16, DType::BFloat16};
constexpr Formula kFormulas[] = {Formula::LeakyReLU, Formula::LeakyReLUSigned, Formula::ReLU};
constexpr Saved kKinds[] = {Saved::Input, Saved::Output, Saved::OutputAndMask, Saved::Mask};

constexpr int64_t kStream = 0x57;  // the stream that every launch must use

void* pointer(int64_t address) { return reinterpret_cast<void*>(address); }

StridedView view(const Operand& operand) {
  StridedView result;
  result.ndim = int(operand.ndim);
  for (int d = 0; d < result.ndim; ++d) {
    result.size[d] = operand.size[d];
    result.stride[d] = operand.stride[d];
  }
  return result;
}

Shape shape(const Call& c) {
  Shape result;
  result.outer = c.outer;
  result.channels = c.channels;
  result.inner = c.inner;
  return result;
}

Alpha alpha(const Call& c) {
  Alpha result;
  result.data = pointer(c.alpha);
  result.dtype = kTypes[c.alpha_dtype];
  result.value = c.alpha_value;
  return result;
}

cuda::Launch launch(const Call& c) {
  cuda::Launch result;
  result.stream = pointer(kStream);
  result.multiprocessors = int(c.multiprocessors);
  result.workspace = pointer(c.workspace);
  return result;
}

ForwardArgs forward_args(const Call& c) {
  ForwardArgs args;
  args.formula = kFormulas[c.formula];
  args.dtype = kTypes[c.dtype];
  args.shape = shape(c);
  args.x = pointer(c.x.address);
  args.x_view = view(c.x);
  args.y = pointer(c.y.address);
  args.y_view = view(c.y);
  args.alpha = alpha(c);
  args.mask = static_cast<uint8_t*>(pointer(c.mask));
  return args;
}

BackwardArgs backward_args(const Call& c) {
  BackwardArgs args;
  args.dtype = kTypes[c.dtype];
  args.shape = shape(c);
  args.grad = pointer(c.grad.address);
  args.grad_view = view(c.grad);
  args.kind = kKinds[c.kind];
  args.saved = pointer(c.saved.address);
  args.saved_view = view(c.saved);
  args.mask = static_cast<const uint8_t*>(pointer(c.mask));
  args.alpha = alpha(c);
  args.grad_x = pointer(c.grad_x.address);
  args.output_view = view(c.grad_x);
  args.grad_alpha = pointer(c.grad_alpha);
  args.grad_alpha_dtype = kTypes[c.grad_alpha_dtype];
  return args;
}

// ---------------------------------------------------------------------------------------------------------------------
// The functions of the CUDA runtime that the host code calls

struct Recorded {
  uint64_t grid[3], block[3], shared_bytes, right_stream;
  void** parameters;
};
using OnLaunch = void (*)(const char* kernel, const Recorded* launch);

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};

OnLaunch on_launch = nullptr;
Configuration pushed;
std::string message;

std::map<const void*, std::string>& names() {
  static std::map<const void*, std::string> names;  // device names by host stub; filled when the library is loaded
  return names;
}

cudaError_t record(const void* stub, dim3 grid, dim3 block, void** parameters, size_t shared_bytes,
                   cudaStream_t stream) {
  const auto name = names().find(stub);
  const Recorded launch{
      {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes, stream == pointer(kStream), parameters};
  on_launch(name == names().end() ? "" : name->second.c_str(), &launch);
  return cudaSuccess;
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  names()[stub] = name;
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
// kernel<<<grid, block, shared>>>(...) pushes a configuration, and the host stub pops it.
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream) {
  pushed = {grid, block, shared_bytes, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared_bytes = pushed.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = pushed.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** parameters, size_t shared_bytes,
                               cudaStream_t stream) {
  return record(kernel, grid, block, parameters, shared_bytes, stream);
}
cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** parameters, size_t shared_bytes,
                             cudaStream_t stream) {
  return record(stub, grid, block, parameters, shared_bytes, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub, void** parameters) {
  return record(stub, config->gridDim, config->blockDim, parameters, config->dynamicSmemBytes, config->stream);
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
  *blocks = 4;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  *blocks = 4;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 0;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "no error"; }
const char* cudaGetErrorName(cudaError_t) { return "no error"; }

// -----------------------------------------------------------------------------------------------------------------
// Functions that project.py calls

void set_on_launch(OnLaunch function) { on_launch = function; }

// Calls cuda::forward. Returns null, or the message of the exception.
const char* record_forward(const Call* c) try {
  cuda::forward(forward_args(*c), launch(*c));
  return nullptr;
} catch (const std::exception& error) {
  return (message = error.what()).c_str();
}

const char* record_backward(const Call* c) try {
  cuda::backward(backward_args(*c), launch(*c));
  return nullptr;
} catch (const std::exception& error) {
  return (message = error.what()).c_str();
}

uint64_t workspace_bytes(const Call* c) { return cuda::workspace_bytes(backward_args(*c), int(c->multiprocessors)); }

}  // extern "C"
