// How sums become a channel's mean, deviation and gradient in instance_norm_act. Shared by the CPU and CUDA kernels.
#pragma once

#include <torch/headeronly/macros/Macros.h>

#include <cmath>
#include <cstdint>

namespace atelier {

// Mean and 1 / deviation of `count` numbers, from the sums of d = x - shift and of d².
C10_HOST_DEVICE inline void finish_statistics(
    double sum, double square, float shift, int64_t count, double eps, float& mean, float& rstd) {
  const double difference = sum / static_cast<double>(count);
  const double variance = square / static_cast<double>(count) - difference * difference;
  mean = static_cast<float>(shift + difference);
  rstd = static_cast<float>(1.0 / std::sqrt((variance > 0.0 ? variance : 0.0) + eps));
}

// The gradient of x is scale * grad - constant - (x - mean) * slope, where scale is weight / deviation, sum is that of
// grad, and product that of grad * (x - mean) / deviation.
C10_HOST_DEVICE inline void finish_gradient(
    float scale, float rstd, float sum, float product, int64_t count, float& constant, float& slope) {
  constant = scale * sum / static_cast<float>(count);
  slope = scale * rstd * product / static_cast<float>(count);
}

}  // namespace atelier
