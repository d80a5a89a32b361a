#include "large_output.h"

#include "tuning.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace leaky_ext::cpu {
namespace {

#if defined(__linux__)

uintptr_t round_up(uintptr_t address, uintptr_t page) { return (address + page - 1) & ~(page - 1); }

// Whether memory was written to before: looks at a page in the middle.
bool is_touched(uintptr_t begin, int64_t bytes) {
  static const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  unsigned char resident = 1;
  const uintptr_t middle = (begin + uintptr_t(bytes) / 2) & ~(page - 1);
  return mincore(reinterpret_cast<void*>(middle), page, &resident) != 0 || (resident & 1);
}

void advise_huge_pages(uintptr_t begin, int64_t bytes) {
  constexpr uintptr_t kHugePage = uintptr_t(2) << 20;
  const uintptr_t first = round_up(begin, kHugePage), last = (begin + uintptr_t(bytes)) & ~(kHugePage - 1);
  // A refusal leaves ordinary pages, which is no error.
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

#else

bool is_touched(uintptr_t, int64_t) { return true; }
void advise_huge_pages(uintptr_t, int64_t) {}

#endif

}  // namespace

bool prepare_output(void* memory, int64_t bytes) {
  if (bytes < kLargeOutput) return false;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  if (!is_touched(begin, bytes)) {
    advise_huge_pages(begin, bytes);
    return false;
  }
  return begin % 64 == 0;
}

}  // namespace leaky_ext::cpu
