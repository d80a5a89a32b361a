// What the kernel tests share: element types, the formulas in plain scalar code, and threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"

namespace leaky_ext::test {

inline int failures = 0;

#define CHECK(condition, ...)                                   \
  if (!(condition)) {                                           \
    ++leaky_ext::test::failures;                                \
    std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
    std::printf(__VA_ARGS__);                                   \
    std::printf("\n");                                          \
    if (leaky_ext::test::failures > 20) std::exit(1);           \
  }

template <typename To, typename From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// An element type: its name for the kernels, the type of the arithmetic, and conversions that share no code with them.
struct Float64 {
  using Bits = uint64_t;
  using Math = double;
  static constexpr DType dtype = DType::Float64;
  static Math get(Bits bits) { return bits_as<double>(bits); }
  static Bits put(Math value) { return bits_as<uint64_t>(value); }
};

struct Float32 {
  using Bits = uint32_t;
  using Math = float;
  static constexpr DType dtype = DType::Float32;
  static Math get(Bits bits) { return bits_as<float>(bits); }
  static Bits put(Math value) { return bits_as<uint32_t>(value); }
};

struct Float16 {
  using Bits = uint16_t;
  using Math = float;
  static constexpr DType dtype = DType::Float16;
  static Math get(Bits bits) {
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    const int exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    if (exponent == 31) return mantissa ? std::numeric_limits<float>::quiet_NaN() : sign * INFINITY;
    return sign * (exponent ? std::ldexp(1024.0f + float(mantissa), exponent - 25) : std::ldexp(float(mantissa), -24));
  }
  static Bits put(Math value) {
    const Bits sign = std::signbit(value) ? 0x8000 : 0;
    const float magnitude = std::fabs(value);
    if (std::isnan(value)) return Bits(sign | 0x7e00);
    if (magnitude >= 65520.0f) return Bits(sign | 0x7c00);
    int exponent = -24;
    if (magnitude != 0) std::frexp(magnitude, &exponent);  // magnitude < 2^exponent
    const int unit = std::max(exponent - 11, -24);
    const float units = std::nearbyint(std::ldexp(magnitude, -unit));  // rounding may carry into the exponent
    return Bits(sign + Bits(units) + (unit + 24) * 1024);
  }
};

struct BFloat16 {
  using Bits = uint16_t;
  using Math = float;
  static constexpr DType dtype = DType::BFloat16;
  static Math get(Bits bits) { return bits_as<float>(uint32_t(bits) << 16); }
  static Bits put(Math value) {
    const uint32_t bits = bits_as<uint32_t>(value);
    if (std::isnan(value)) return Bits(bits >> 16 | 0x40);
    const uint32_t rest = bits & 0xffff, up = rest > 0x8000 || (rest == 0x8000 && bits >> 16 & 1);
    return Bits((bits >> 16) + up);
  }
};

// Whether two elements are the same, any NaN being like any other.
template <typename T>
bool same(typename T::Bits a, typename T::Bits b) {
  return a == b || (std::isnan(T::get(a)) && std::isnan(T::get(b)));
}

// Numbers of both signs, with every special value among them.
template <typename T>
typename T::Bits element(int64_t i, uint32_t seed) {
  using Math = typename T::Math;
  const uint32_t hash = (uint32_t(i) + seed * 977u) * 2654435761u >> 7;
  const Math infinity = std::numeric_limits<Math>::infinity();
  const Math special[] = {Math(0), -Math(0), infinity, -infinity, std::nan(""), Math(1e-7), Math(-1e-7)};
  if (hash % 61 == 0) return T::put(special[hash / 61 % 7]);
  return T::put((Math(int64_t(hash % 20011)) - Math(10005)) / Math(2048));
}

template <typename T>
typename T::Bits finite_element(int64_t i, uint32_t seed) {
  const auto bits = element<T>(i, seed);
  return std::isfinite(T::get(bits)) ? bits : T::put(typename T::Math(-1.5));
}

inline bool negative(double x) { return !(x >= 0); }

// A ParallelFor with as many threads as `threads` says.
inline int threads = 1;

inline void parallel_for(int64_t tasks, int64_t grain, void* context, cpu::Body body) {
  std::vector<std::thread> team;
  const int64_t share = std::max((tasks + threads - 1) / threads, grain);
  for (int64_t begin = share; begin < tasks; begin += share) {
    team.emplace_back(body, context, begin, std::min(begin + share, tasks));
  }
  body(context, 0, std::min(share, tasks));
  for (std::thread& thread : team) thread.join();
}

constexpr int kSkip = 77;  // as tests/cpp/CMakeLists.txt says

// main of a test; skips it where the machine lacks the instruction set that LEAKY_EXT_CPU names.
inline int run(const char* name, void (*body)()) {
  try {
    std::printf("%s, %s\n", name, cpu::instruction_set());
  } catch (const std::runtime_error& error) {
    std::printf("%s\n", error.what());
    return kSkip;
  }
  body();
  std::printf("%s\n", failures ? "FAILED" : "passed");
  return failures != 0;
}

}  // namespace leaky_ext::test
