// Stands in for cub::BlockReduce. As there, only thread 0 gets the sum, and the storage may be used again only after a
// barrier.
#pragma once

#include <cuda_runtime.h>

namespace cub {

template <typename T, int Threads>
class BlockReduce {
 public:
  struct TempStorage {
    T values[Threads];
  };

  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  T Sum(T value) {
    storage_.values[threadIdx.x] = value;
    cuda_host::barrier();
    if (threadIdx.x != 0) return value;
    for (int t = 1; t < Threads; ++t) value += storage_.values[t];
    return value;
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
