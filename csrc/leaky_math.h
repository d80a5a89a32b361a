// The formulas, once, for scalars and for SIMD vectors, on the host and on CUDA devices.
//
//   negative(x) = not (x >= 0): +0.0 and -0.0 count as positive, NaN as negative.
//
// V is float, double or a vector; a vector type brings its own `select` and comparison operators.
#pragma once

#if defined(__CUDACC__)
#define LEAKY_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define LEAKY_HD inline __attribute__((always_inline))
#else
#define LEAKY_HD inline
#endif

namespace leaky_ext {

template <typename V>
LEAKY_HD V select(bool condition, V a, V b) {
  return condition ? a : b;
}

template <typename V>
LEAKY_HD auto negative(V x) {
  return !(x >= V(0));
}

// Leaky ReLU: forward, and its derivative applied to a gradient.
template <typename V>
LEAKY_HD V leaky_relu(V x, V alpha) {
  return select(negative(x), alpha * x, x);
}

// The same for a y that is saved for backward: -0.0 becomes +0.0, so that the sign bit of y is that of x, even if
// alpha * x underflows to -0.0 (alpha > 0).
template <typename V>
LEAKY_HD V leaky_relu_signed(V x, V alpha) {
  return select(negative(x), alpha * x, x + V(0));
}

// ReLU; NaN stays NaN.
template <typename V>
LEAKY_HD V relu(V x) {
  return select(x < V(0), V(0), x);
}

template <typename M, typename V>
LEAKY_HD V grad_x(M is_negative, V grad, V alpha) {
  return select(is_negative, alpha * grad, grad);
}

// What one element adds to d(alpha). Only negative elements take part, so an infinite positive x or gradient adds 0.
template <typename M, typename V>
LEAKY_HD V grad_alpha(M is_negative, V grad, V x) {
  return select(is_negative, grad * x, V(0));
}

// Rebuilds x from y, if only the output was saved. alpha == 0 gives NaN, never a plausible wrong number.
template <typename M, typename V>
LEAKY_HD V input_from_output(M is_negative, V y, V alpha) {
  return select(is_negative, y / alpha, y);
}

}  // namespace leaky_ext
