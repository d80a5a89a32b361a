#include "huge_pages.h"

#include <cstdint>

#include "tuning.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace leaky_ext::cpu {

void advise_huge_pages(void* memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (int64_t(bytes) < kHugeBytes) return;
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) & ~(kPage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) & ~(kPage - 1);
  // A refusal leaves ordinary pages, which is no error.
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)bytes;
#endif
}

}  // namespace leaky_ext::cpu
