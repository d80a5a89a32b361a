// The formulas for scalars and SIMD vectors. CUDA computes d(alpha) in cuda/backward.cuh, and x from y in
// cuda/slope.cuh.
//
//   negative(x) = not (x >= 0): +0.0 and -0.0 count as positive, NaN as negative.
//
// V is float, double or a vector; a vector type brings its own `select` and comparison operators.
#pragma once

#if defined(__CUDACC__)
#define LEAKY_HD __host__ __device__ __forceinline__
#else
#define LEAKY_HD inline __attribute__((always_inline))
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

// Returns leaky ReLU of x.
template <typename V>
LEAKY_HD V leaky_relu(V x, V alpha) {
  return select(negative(x), alpha * x, x);
}

// Leaky ReLU if only y is saved for backward (alpha > 0): writes +0.0 for x = -0.0, so that the sign bit of y is set
// iff x is negative, even if alpha * x underflows to -0.0.
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

// Returns the term of one element in d(alpha): 0 for positive elements, even if x or the gradient is infinite.
template <typename M, typename V>
LEAKY_HD V grad_alpha(M is_negative, V grad, V x) {
  return select(is_negative, grad * x, V(0));
}

// Computes x from y, if the output was saved. alpha == 0 gives NaN.
template <typename M, typename V>
LEAKY_HD V input_from_output(M is_negative, V y, V alpha) {
  return select(is_negative, y / alpha, y);
}

}  // namespace leaky_ext
