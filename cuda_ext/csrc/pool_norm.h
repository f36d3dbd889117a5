// Sizes of pool_norm_act, and how sums become a channel's numbers. Shared by the CPU and CUDA kernels.
#pragma once

#include <torch/headeronly/macros/Macros.h>

#include <cmath>
#include <cstdint>

namespace atelier {

constexpr int WINDOW = 4;  // pixels of x for a pooled one: above left, above right, below left, below right

// x is [samples, height, width, channels], pooled [samples, rows, columns, channels]; without pooling they are one.
// Pixels are numbered in that order. codes is [samples, rows, columns, bytes]: two bits for a channel, the place of the
// maximum in its window.
struct PoolShape {
  int64_t samples;
  int height, width, rows, columns, channels, bytes;
  bool pool, gelu;

  PoolShape(int64_t samples, int64_t channels, int64_t height, int64_t width, bool pool, bool gelu)
      : samples(samples),
        height(static_cast<int>(height)),
        width(static_cast<int>(width)),
        rows(static_cast<int>(pool ? height / 2 : height)),
        columns(static_cast<int>(pool ? width / 2 : width)),
        channels(static_cast<int>(channels)),
        bytes((static_cast<int>(channels) + 3) / 4),
        pool(pool),
        gelu(gelu) {}

  int64_t pixels() const {
    return samples * rows * columns;
  }
};

// A channel's mean, 1 / deviation and unbiased variance, from the sums of d = x - shift and of d².
C10_HOST_DEVICE inline void finish_pool_statistics(
    double sum, double square, float shift, int64_t count, double eps, float& mean, float& rstd, float& unbiased) {
  const double difference = sum / static_cast<double>(count);
  const double biased = square / static_cast<double>(count) - difference * difference;
  const double variance = biased < 0.0 ? 0.0 : biased;  // NaN stays NaN
  mean = static_cast<float>(shift + difference);
  rstd = static_cast<float>(1.0 / std::sqrt(variance + eps));
  unbiased = static_cast<float>(variance * static_cast<double>(count) / static_cast<double>(count - 1));
}

}  // namespace atelier
