// Elementary functions of one float, named as lanes.h names those of several: formulas are written once for both.
#pragma once

#include <torch/headeronly/macros/Macros.h>

#include <cmath>

namespace atelier {

// exp(x) for x <= 0. A GPU's short way: off by |x| * 6e-8 + 2e-7 of the value, and 0 below 1e-38.
C10_HOST_DEVICE inline float exponential(float x) {
  const float power = x * 1.44269504f;
#ifdef __CUDA_ARCH__
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(power));
  return value;
#else
  return std::exp2(power);
#endif
}

C10_HOST_DEVICE inline float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  return __fdividef(1.0f, x);
#else
  return 1.0f / x;
#endif
}

C10_HOST_DEVICE inline float magnitude(float x) {
  return std::fabs(x);
}

C10_HOST_DEVICE inline float positive_part(float x) {
  return x < 0.0f ? 0.0f : x;
}

// The gradient of what stands before the activation, `value`.
C10_HOST_DEVICE inline float masked(float grad, float value) {
  return value <= 0.0f ? 0.0f : grad;
}

C10_HOST_DEVICE inline float where_negative(float x, float then, float otherwise) {
  return x < 0.0f ? then : otherwise;
}

}  // namespace atelier
