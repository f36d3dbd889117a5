// A dense picture tensor cut into strips that threads work on, and sums over strips. Numbers are added up in strips of
// fixed length and the strips in their order, so a sum does not depend on the number of threads.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"

namespace atelier {

constexpr int64_t STRIP = 1 << 12;  // numbers of a strip, at most

// Rows of up to LANES numbers, `stride` apart: of one channel, or each lane of the next channel.
struct Strip {
  int64_t sample, number, channel, begin, rows, stride;
  int lanes;
};

// [samples, pixels, channels] or [samples, channels, pixels].
struct Shape {
  int64_t samples, channels, pixels;
  bool channels_last;
  int64_t columns, length, strips;

  explicit Shape(const torch::stable::Tensor& x)
      : samples(x.size(0)),
        channels(x.size(1)),
        pixels(x.size(2) * x.size(3)),
        channels_last(!x.is_contiguous()),
        columns(channels_last ? (channels + LANES - 1) / LANES : channels),
        length(channels_last ? STRIP / LANES : STRIP),
        strips((pixels + length - 1) / length) {}

  // Calls body(strip) for every strip, on all threads.
  template <typename Body>
  void for_each_strip(Body body) const {
    torch::stable::parallel_for(0, samples * strips * columns, 1, [&](int64_t first, int64_t last) {
      for (int64_t item = first; item < last; ++item) {
        const int64_t column = item % columns, number = item / columns % strips, sample = item / columns / strips;
        const int64_t count = std::min(length, pixels - number * length);
        if (channels_last) {
          const int64_t channel = column * LANES;
          const int64_t begin = (sample * pixels + number * length) * channels + channel;
          const int lanes = static_cast<int>(std::min<int64_t>(LANES, channels - channel));
          body(Strip{sample, number, channel, begin, count, channels, lanes});
        } else {
          const int64_t begin = (sample * channels + column) * pixels + number * length;
          const int64_t rows = count / LANES;
          const int rest = static_cast<int>(count % LANES);
          if (rows) body(Strip{sample, number, column, begin, rows, LANES, LANES});
          if (rest) body(Strip{sample, number, column, begin + rows * LANES, 1, LANES, rest});
        }
      }
    });
  }

  // Calls body(sample, channel, index in [samples, channels]).
  template <typename Body>
  void for_each_channel(Body body) const {
    for (int64_t sample = 0; sample < samples; ++sample) {
      for (int64_t channel = 0; channel < channels; ++channel) body(sample, channel, sample * channels + channel);
    }
  }
};

// A number for each channel of each sample.
struct PerChannel {
  const Shape& shape;
  std::vector<float> values;

  explicit PerChannel(const Shape& shape) : shape(shape), values(shape.samples * shape.channels) {}

  Lanes of(const Strip& strip) const {
    const float* from = &values[strip.sample * shape.channels + strip.channel];
    return shape.channels_last ? load<false>(from, strip.lanes) : Lanes(*from);
  }
};

// Two sums for each channel of each sample.
class Sums {
 public:
  explicit Sums(const Shape& shape) : shape_(shape), sums_(shape.samples * shape.strips * 2 * shape.channels, 0.0) {}

  void add(const Strip& strip, const Lanes& first, const Lanes& second) {
    double* to = &sums_[index(strip.sample, strip.number, 0, strip.channel)];
    for (int lane = 0; lane < strip.lanes; ++lane) {
      const int64_t channel = shape_.channels_last ? lane : 0;
      to[channel] += static_cast<double>(first[lane]);
      to[shape_.channels + channel] += static_cast<double>(second[lane]);
    }
  }

  // which: 0 or 1.
  double total(int64_t sample, int64_t channel, int which) const {
    double total = 0;
    for (int64_t number = 0; number < shape_.strips; ++number) total += sums_[index(sample, number, which, channel)];
    return total;
  }

 private:
  int64_t index(int64_t sample, int64_t number, int which, int64_t channel) const {
    return ((sample * shape_.strips + number) * 2 + which) * shape_.channels + channel;
  }

  const Shape& shape_;
  std::vector<double> sums_;
};

}  // namespace atelier
