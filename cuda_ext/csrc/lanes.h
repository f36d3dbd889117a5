// Sixteen floats side by side, in registers of the processor, and their way from and to memory.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>

// Functions marked with this are compiled for newer processors too, and the system's loader takes what fits. Neither
// kind fuses multiplications into additions, so results are equal.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define ATELIER_EVERY_PROCESSOR __attribute__((flatten, target_clones("avx2", "default")))
#else
#define ATELIER_EVERY_PROCESSOR
#endif

namespace atelier {

constexpr int LANES = 16;
constexpr int PARTS = 2;
constexpr int PART = LANES / PARTS;
typedef float Floats __attribute__((vector_size(PART * 4)));
typedef uint32_t Words __attribute__((vector_size(PART * 4)));
typedef uint16_t HalfWords __attribute__((vector_size(PART * 2)));

struct Lanes {
  Floats parts[PARTS];

  Lanes() : parts{} {}
  Lanes(float value) {
    for (Floats& part : parts) part = value - Floats{};
  }

  float operator[](int lane) const {
    return parts[lane / PART][lane % PART];
  }
};

// Body: void(int part, Floats& result).
template <typename Body>
inline Lanes each(Body body) {
  Lanes result;
  for (int i = 0; i < PARTS; ++i) body(i, result.parts[i]);
  return result;
}

inline Lanes operator+(const Lanes& a, const Lanes& b) {
  return each([&](int i, Floats& result) { result = a.parts[i] + b.parts[i]; });
}

inline Lanes operator-(const Lanes& a, const Lanes& b) {
  return each([&](int i, Floats& result) { result = a.parts[i] - b.parts[i]; });
}

inline Lanes operator*(const Lanes& a, const Lanes& b) {
  return each([&](int i, Floats& result) { result = a.parts[i] * b.parts[i]; });
}

inline Lanes operator/(const Lanes& a, const Lanes& b) {
  return each([&](int i, Floats& result) { result = a.parts[i] / b.parts[i]; });
}

inline Lanes operator-(const Lanes& a) {
  return each([&](int i, Floats& result) { result = -a.parts[i]; });
}

inline Lanes where_negative(const Lanes& x, const Lanes& then, const Lanes& otherwise) {
  return each([&](int i, Floats& result) { result = x.parts[i] < 0.0f ? then.parts[i] : otherwise.parts[i]; });
}

// 0 where value < 0; NaN stays NaN, as in torch.relu.
inline Lanes positive_part(const Lanes& value) {
  return where_negative(value, Lanes(), value);
}

// The gradient of what stands before the activation, `value`.
inline Lanes masked(const Lanes& grad, const Lanes& value) {
  return each([&](int i, Floats& result) { result = value.parts[i] <= 0.0f ? Floats{} : grad.parts[i]; });
}

inline Lanes magnitude(const Lanes& x) {
  return where_negative(x, -x, x);
}

inline Lanes reciprocal(const Lanes& x) {
  return Lanes(1.0f) / x;
}

// A power of two times a polynomial of degree 6 in the rest, of relative error 2e-7; 0 below 1e-38.
inline Lanes exponential(const Lanes& x) {
  constexpr float LEAST = -87.0f, MAGIC = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
  const Lanes within = where_negative(x - LEAST, LEAST, x);
  const Lanes shifted = within * 1.44269504f + MAGIC, power = shifted - MAGIC;
  const Lanes rest = within - power * 0.693359375f + power * 2.12194440e-4f;
  Lanes sum = rest * 1.38888889e-3f + 8.33333333e-3f;
  sum = sum * rest + 4.16666667e-2f;
  sum = sum * rest + 1.66666667e-1f;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.0f;
  sum = sum * rest + 1.0f;
  const Lanes value = each([&](int i, Floats& result) {
    result = (Floats)((Words)sum.parts[i] + ((Words)shifted.parts[i] << 23));
  });
  return where_negative(x - LEAST, 0.0f, value);
}

inline void to_floats(const float* values, Floats& floats) {
  std::memcpy(&floats, values, sizeof(floats));
}

// A bfloat16 is the upper half of a float.
inline void to_floats(const torch::headeronly::BFloat16* values, Floats& floats) {
  HalfWords upper;
  std::memcpy(&upper, values, sizeof(upper));
  floats = (Floats)(__builtin_convertvector(upper, Words) << 16);
}

// A float16's exponent and mantissa in a float's place are 2^112 times too small; the last exponent is infinity or NaN.
inline void to_floats(const torch::headeronly::Half* values, Floats& floats) {
  HalfWords halves;
  std::memcpy(&halves, values, sizeof(halves));
  const Words bits = __builtin_convertvector(halves, Words), rest = bits & 0x7fff;
  const Words large = (Words)(rest >= 0x7c00);
  const Words size = (Words)((Floats)(rest << 13) * 0x1p112f);
  floats = (Floats)(((bits & 0x8000) << 16) | (large & (rest << 13 | 0x7f800000)) | (~large & size));
}

inline void from_floats(const Floats& floats, float* values) {
  std::memcpy(values, &floats, sizeof(floats));
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline void from_floats(const Floats& floats, torch::headeronly::BFloat16* values) {
  const Words bits = (Words)floats, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Words number = (Words)(floats == floats);
  const HalfWords upper = __builtin_convertvector((rounded & number) | (~number & 0x7fc0), HalfWords);
  std::memcpy(static_cast<void*>(values), &upper, sizeof(upper));
}

// Adds a power of two beside which the last bit of the result is the last bit of a float16; the addition rounds.
inline void from_floats(const Floats& floats, torch::headeronly::Half* values) {
  const Words bits = (Words)floats, size = bits & 0x7fffffff;
  const Words exponent = size & 0x7f800000, low = (Words)(exponent < 0x38800000);
  const Words base = ((low & 0x38800000) | (~low & exponent)) + (13 << 23);
  const Words rounded = (Words)((Floats)size + (Floats)base) - base;
  const Words finite = (Words)(size < 0x477ff000), number = (Words)(floats == floats);
  const Words half = rounded + ((((base >> 23) - 126) & ~low) << 10);
  const Words result = (finite & half) | (~finite & ((number & 0x7c00) | (~number & 0x7e00)));
  const HalfWords halves = __builtin_convertvector(result | ((bits >> 16) & 0x8000), HalfWords);
  std::memcpy(static_cast<void*>(values), &halves, sizeof(halves));
}

// FULL: all lanes are there; otherwise the first `count`, and the others are zero.
template <bool FULL, typename T>
Lanes load(const T* from, int count) {
  alignas(64) T values[LANES];
  if (!FULL) {
    std::memset(static_cast<void*>(values), 0, sizeof(values));
    std::memcpy(static_cast<void*>(values), from, count * sizeof(T));
  }
  const T* begin = FULL ? from : values;
  return each([&](int i, Floats& result) { to_floats(begin + PART * i, result); });
}

template <bool FULL, typename T>
void store(const Lanes& lanes, T* to, int count) {
  alignas(64) T values[LANES];
  T* begin = FULL ? to : values;
  for (int i = 0; i < PARTS; ++i) from_floats(lanes.parts[i], begin + PART * i);
  if (!FULL) std::memcpy(static_cast<void*>(to), values, count * sizeof(T));
}

}  // namespace atelier
