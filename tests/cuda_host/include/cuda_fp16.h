// Stands in for CUDA's half, by the compiler's own.
#pragma once

struct __half {
  _Float16 value;
  __half() = default;
};

inline float __half2float(__half h) { return float(h.value); }

inline __half __float2half_rn(float f) {
  __half h;
  h.value = _Float16(f);
  return h;
}

inline __half __double2half(double d) {
  __half h;
  h.value = _Float16(d);
  return h;
}

struct __half2 {
  __half x, y;
};

inline __half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
