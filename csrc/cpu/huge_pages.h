// Most of the cost of a large fresh output is the first touch of its pages; on huge pages there are 512 times fewer.
#pragma once

#include <cstddef>

namespace leaky_ext::cpu {

// Advises huge pages for memory that nothing was written to yet, where it is large enough to pay and the system allows.
void advise_huge_pages(void* memory, size_t bytes);

}  // namespace leaky_ext::cpu
