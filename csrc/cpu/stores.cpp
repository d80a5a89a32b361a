#include "stores.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>

#include "../kernels.h"
#include "tuning.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace leaky_ext::cpu {
namespace {

#if defined(__linux__)

// Bytes of the last-level cache (level 3 or above) of the first processor; 0: unknown. Not sysconf's figure: on AMD it
// is that of the whole socket, 384 MiB where a core reaches 32.
int64_t system_cache() {
  int64_t result = 0;
  for (int index = 0; index < 8; ++index) {
    const auto read = [&](const char* what, const char* format, auto*... to) {
      const std::string path = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/" + what;
      std::FILE* file = std::fopen(path.c_str(), "re");
      if (!file) return false;
      const bool complete = std::fscanf(file, format, to...) == int(sizeof...(to));
      std::fclose(file);
      return complete;
    };
    int level = 0;
    long size = 0;
    char unit = 0;
    if (!read("level", "%d", &level) || level < 3 || !read("size", "%ld%c", &size, &unit)) continue;
    result = std::max(result, int64_t(size) << (unit == 'M' ? 20 : unit == 'K' ? 10 : 0));
  }
  return result;
}

// Whether memory is mapped, by three pages of it: a block of the heap may be fresh at one end only.
bool is_mapped(uintptr_t begin, int64_t bytes) {
  static const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  for (const int64_t at : {int64_t(0), bytes / 2, bytes - 1}) {
    unsigned char resident = 1;
    void* where = reinterpret_cast<void*>((begin + uintptr_t(at)) & ~(page - 1));
    if (mincore(where, page, &resident) == 0 && !(resident & 1)) return false;
  }
  return true;
}

#else

int64_t system_cache() { return 0; }
bool is_mapped(uintptr_t, int64_t) { return true; }

#endif

StreamBytes chosen_stream_bytes() {
#if defined(__SSE2__)
  if (const char* wanted = std::getenv("LEAKY_EXT_STREAM_BYTES"); wanted && *wanted) {
    char* end = nullptr;
    errno = 0;
    const long long bytes = std::strtoll(wanted, &end, 10);
    if (*end || errno || bytes < 0) {
      throw std::runtime_error(std::string("LEAKY_EXT_STREAM_BYTES is '") + wanted + "', not a number of bytes");
    }
    return {bytes, bytes};
  }
  const int64_t told = system_cache();
  const double cache = double(told ? std::clamp(told, kLeastCache, kMostCache) : kMostCache);
  return {int64_t(cache * kStreamTwo), int64_t(cache * kStreamThree)};
#else
  constexpr int64_t never = std::numeric_limits<int64_t>::max();  // the loops have no such stores
  return {never, never};
#endif
}

}  // namespace

StreamBytes stream_bytes() {
  static const StreamBytes bytes = chosen_stream_bytes();
  return bytes;
}

bool goes_around_cache(int tensors, const void* memory, int64_t bytes) {
  const StreamBytes least = stream_bytes();
  if (bytes == 0 || bytes < (tensors == 2 ? least.two_tensors : least.three_tensors)) return false;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  return begin % 64 == 0 && is_mapped(begin, bytes);
}

void finish_stores() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace leaky_ext::cpu
