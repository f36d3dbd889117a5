// GELU (the exact one, by the normal distribution) and ReLU, for one float or several (Number). Hendrycks and Gimpel
// 2016, https://arxiv.org/abs/1606.08415. Shared by CPU and CUDA kernels.
#pragma once

#include <torch/headeronly/macros/Macros.h>

#include "elementary.h"

namespace atelier {

// The share of the normal distribution below v, off by 2e-7 at most, and its density at v. The share beyond |v| is the
// density times a polynomial in 1 / (1 + 0.28 |v|), fitted so that the error of v times it is smallest.
template <typename Number>
C10_HOST_DEVICE inline void normal_distribution(const Number& v, Number& below, Number& density) {
  const Number size = magnitude(v), falling = exponential(size * size * -0.5f);
  const Number t = reciprocal(size * 0.28f + 1.0f);
  Number sum = t * -0.10655423f + 0.39296785f;
  sum = sum * t - 0.24209467f;
  sum = sum * t + 0.27308893f;
  sum = sum * t + 0.065796524f;
  sum = sum * t + 0.11679558f;
  const Number beyond = sum * t * falling;
  below = where_negative(v, beyond, -beyond + 1.0f);
  density = falling * 0.39894228f;
}

template <bool GELU, typename Number>
C10_HOST_DEVICE inline Number activated(const Number& v) {
  if (!GELU) return positive_part(v);
  Number below, density;
  normal_distribution(v, below, density);
  return v * below;
}

// The gradient of v, from that of the activated v.
template <bool GELU, typename Number>
C10_HOST_DEVICE inline Number activation_gradient(const Number& grad, const Number& v) {
  if (!GELU) return masked(grad, v);
  Number below, density;
  normal_distribution(v, below, density);
  return grad * (below + v * density);
}

}  // namespace atelier
