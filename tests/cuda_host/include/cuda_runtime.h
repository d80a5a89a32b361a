// Stands in for the CUDA runtime, so that g++ compiles the kernels' sources and they run on the host.
//
// The threads of a block are threads of the machine and run at the same time: a missing barrier is a real race, which
// ThreadSanitizer sees. Blocks run one after another, so what is __shared__ can be static.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline thread_local dim3 threadIdx{0, 0, 0}, blockIdx{0, 0, 0};
inline dim3 blockDim, gridDim;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorNoKernelImageForDevice = 209 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 0;
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}

namespace cuda_host {

constexpr int kWarp = 32;

class Barrier {
 public:
  void reset(int threads) {
    if (threads == threads_) return;
    if (threads_ > 0) pthread_barrier_destroy(&barrier_);
    pthread_barrier_init(&barrier_, nullptr, unsigned(threads));
    threads_ = threads;
  }
  void wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
  int threads_ = 0;
};

// The machine's threads, one for each thread of a block, kept from launch to launch.
class Block {
 public:
  static Block& instance() {
    static Block block;
    return block;
  }

  void run(int threads, std::function<void()> body) {
    while (int(workers_.size()) < threads) {
      const int number = int(workers_.size());
      workers_.emplace_back([this, number, seen = generation_]() mutable { work(number, seen); });
    }
    for (int turn : {0, 1}) {
      block_barrier[turn].reset(threads);
      for (Barrier& barrier : warp_barrier[turn]) barrier.reset(std::min(threads, kWarp));
    }
    std::unique_lock<std::mutex> lock(mutex_);
    body_ = std::move(body);
    threads_ = left_ = threads;
    ++generation_;
    start_.notify_all();
    done_.wait(lock, [this] { return left_ == 0; });
  }

  ~Block() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    start_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  // Two of each, used in turn: threads that are late at one barrier are not taken for threads at the next, neither by
  // shuffles that follow each other nor by ThreadSanitizer.
  Barrier block_barrier[2];
  Barrier warp_barrier[2][1024 / kWarp];
  uint64_t exchange[2][1024];  // for shuffles

 private:
  void work(int number, uint64_t seen) {
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return stop_ || generation_ != seen; });
        if (stop_) return;
        seen = generation_;
        if (number >= threads_) continue;
      }
      threadIdx = dim3(unsigned(number), 0, 0);
      body_();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--left_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::function<void()> body_;
  std::vector<std::thread> workers_;
  int threads_ = 0, left_ = 0;
  uint64_t generation_ = 0;
  bool stop_ = false;
};

inline void barrier() {
  static thread_local int turn = 0;
  Block::instance().block_barrier[turn].wait();
  turn = 1 - turn;
}

// The barrier to leave out, to see that a test notices: "file.cu:line", from the environment.
inline bool left_out(const char* file, int line) {
  static const char* const wanted = std::getenv("CUDA_HOST_LEAVE_OUT");
  if (wanted == nullptr) return false;
  const char* const name = std::strrchr(file, '/');
  const char* const colon = std::strrchr(wanted, ':');
  return std::strncmp(name + 1, wanted, size_t(colon - wanted)) == 0 && std::atoi(colon + 1) == line;
}

template <typename... Params, size_t... N>
void run_grid(void (*kernel)(Params...), dim3 grid, dim3 block, void** arguments, std::index_sequence<N...>) {
  gridDim = grid;
  blockDim = block;
  Block::instance().run(int(block.x), [&] {
    for (unsigned b = 0; b < grid.x; ++b) {
      blockIdx = dim3(b, 0, 0);
      kernel(*static_cast<std::remove_cv_t<Params>*>(arguments[N])...);
      barrier();
    }
  });
}

}  // namespace cuda_host

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!cuda_host::left_out(file, line)) cuda_host::barrier();
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int lane_mask) {
  static thread_local int turn = 0;
  auto& block = cuda_host::Block::instance();
  auto& exchange = block.exchange[turn];
  exchange[threadIdx.x] = uint64_t(value);
  block.warp_barrier[turn][threadIdx.x / cuda_host::kWarp].wait();
  turn = 1 - turn;
  return T(exchange[threadIdx.x ^ unsigned(lane_mask)]);
}

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }

template <typename... Params>
cudaError_t cudaLaunchKernel(void (*kernel)(Params...), dim3 grid, dim3 block, void** arguments, size_t, cudaStream_t) {
  if (grid.x == 0 || grid.x > 0x7fffffffu || block.x == 0 || block.x > 1024) return cudaErrorInvalidConfiguration;
  cuda_host::run_grid(kernel, grid, block, arguments, std::index_sequence_for<Params...>());
  return cudaSuccess;
}

using std::fma;
