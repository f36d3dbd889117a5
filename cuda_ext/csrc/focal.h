// The focal loss of a logit and its slope, for one float or several (Number). Nothing overflows for a finite logit, and
// nothing is raised to a power. Lin et al. 2017, https://arxiv.org/abs/1708.02002. Shared by CPU and CUDA kernels.
#pragma once

#include <torch/headeronly/macros/Macros.h>

#include <cstdint>

#include "elementary.h"

namespace atelier {

constexpr int64_t IGNORED = -2;

struct Focal {
  float positive_weight, negative_weight, gamma;

  // alpha < 0: all terms weigh 1.
  Focal(double alpha, double gamma)
      : positive_weight(static_cast<float>(alpha < 0 ? 1 : alpha)),
        negative_weight(static_cast<float>(alpha < 0 ? 1 : 1 - alpha)),
        gamma(static_cast<float>(gamma)) {}
};

// log(1 + x) for x in [0, 1]: a polynomial of relative error 2e-7.
template <typename Number>
C10_HOST_DEVICE inline Number log_of_one_and(const Number& x) {
  Number sum = x * 0.0052326946f - 0.029505244f;
  sum = sum * x + 0.07822596f;
  sum = sum * x - 0.13663247f;
  sum = sum * x + 0.19106008f;
  sum = sum * x - 0.24842982f;
  sum = sum * x + 0.33319098f;
  sum = sum * x - 0.49999493f;
  sum = sum * x + 0.99999994f;
  return sum * x;
}

// -(1 - p)^gamma * log(p), where p = sigmoid(z) is the probability of what the label says.
template <typename Number>
C10_HOST_DEVICE inline Number focal_loss(const Number& z, float gamma) {
  const Number rest = log_of_one_and(exponential(-magnitude(z)));
  const Number minus_log_p = rest + positive_part(-z), minus_log_other = rest + positive_part(z);
  return exponential(minus_log_other * -gamma) * minus_log_p;
}

// Minus its derivative by z: (1 - p)^gamma * (1 - p - gamma * p * log(p)).
template <typename Number>
C10_HOST_DEVICE inline Number focal_slope(const Number& z, float gamma) {
  const Number small = exponential(-magnitude(z)), rest = log_of_one_and(small), large = reciprocal(small + 1.0f);
  const Number p = where_negative(z, small * large, large), other = where_negative(z, large, small * large);
  const Number minus_log_p = rest + positive_part(-z), minus_log_other = rest + positive_part(z);
  return exponential(minus_log_other * -gamma) * (other + p * minus_log_p * gamma);
}

}  // namespace atelier
