#include "small_tensor.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <cstdlib>

#if defined(LEAKY_WITH_CUDA)
#include <ATen/cuda/EmptyTensor.h>
#endif

namespace leaky_ext {
namespace {

class MallocAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = std::malloc(bytes ? bytes : 1);
    TORCH_CHECK_WITH(OutOfMemoryError, memory, "leaky_ext: not enough memory for ", bytes, " bytes");
    c10::profiledCPUMemoryReporter().New(memory, bytes);
    return {memory, memory, &release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  static void release(void* memory) {
    c10::profiledCPUMemoryReporter().Delete(memory);
    std::free(memory);
  }
};

}  // namespace

at::Tensor small_tensor(at::IntArrayRef sizes, const at::TensorOptions& options) {
#if defined(LEAKY_WITH_CUDA)
  if (options.device().is_cuda()) return at::Tensor(at::detail::empty_cuda(sizes, options));
#endif
  static MallocAllocator* allocator = new MallocAllocator();  // never freed: tensors may outlive static objects
  constexpr c10::DispatchKeySet cpu(c10::DispatchKey::CPU);
  return at::Tensor(
      at::detail::empty_generic(sizes, allocator, cpu, c10::typeMetaToScalarType(options.dtype()), std::nullopt));
}

}  // namespace leaky_ext
