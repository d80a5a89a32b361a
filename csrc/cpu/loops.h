// The interface of the loops, which every instruction set implements. A loop processes a chunk: contiguous elements.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace leaky_ext::cpu {

// Slopes have the type of the arithmetic: double for Float64, else float.
struct ForwardChunk {
  const void* x;
  void* y;
  int64_t n;
  double alpha;        // used if alphas is null
  const void* alphas;  // one slope for each element
  uint8_t* mask;       // may be null; bit 0 of byte 0 belongs to x[0]
};

struct BackwardChunk {
  const void* grad;
  const void* saved;    // x or y, by the Saved kind of the loop
  const uint8_t* mask;  // bit 0 of byte 0 belongs to element 0
  void* grad_x;         // may be null
  int64_t n;
  double alpha = 0;
  const void* alphas = nullptr;
  void* products = nullptr;  // may be null; receives grad * x of the negative elements, 0 for the others
};

using ForwardLoop = void (*)(const ForwardChunk&);
using BackwardLoop = double (*)(const BackwardChunk&);  // returns the sum of the products if `products` is null

enum : int { kUniform = 0, kPerElement = 1 };  // the second index of the tables below

struct Loops {
  ForwardLoop forward[3][2];                                          // by Formula
  BackwardLoop backward[4][2];                                        // by Saved
  void (*accumulate)(const void* products, int64_t n, double* sums);  // sums[i] += products[i]
};

// Returns the loops of the instruction set in use.
const Loops& loops(DType dtype);

namespace baseline {
const Loops& loops(DType dtype);
}
namespace avx2 {
const Loops& loops(DType dtype);
}
namespace avx512 {
const Loops& loops(DType dtype);
}

}  // namespace leaky_ext::cpu
