// The loops of pool_norm_act on a CPU: over pooled pixels, and for each over sixteen channels at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "activation.h"
#include "instance_norm.h"
#include "lanes.h"
#include "pool_norm.h"

namespace atelier {

typedef uint8_t PartBytes __attribute__((vector_size(PART)));

// x: pooled where that is what is read. out: y, or the gradient of x.
template <typename T>
struct PoolPointers {
  const T* x;
  T* pooled;
  T* out;
  const T* grad;
  uint8_t* codes;
  float* before;  // like pooled: the gradient before the activation
};

// What each channel is normalized with: (x - mean) * scale + bias, and what its gradient is made of.
struct PoolNumbers {
  std::vector<float> mean, scale, bias, constant, slope;
  bool gelu, training = false;  // training: constant and slope are known

  PoolNumbers(const PoolShape& shape, const float* statistics, const float* weight, const float* biases)
      : mean(statistics, statistics + shape.channels),
        scale(statistics + shape.channels, statistics + 2 * shape.channels),
        bias(shape.channels, 0.0f),
        constant(shape.channels, 0.0f),
        slope(shape.channels, 0.0f),
        gelu(shape.gelu) {
    for (int c = 0; c < shape.channels; ++c) {
      if (weight) scale[c] *= weight[c];
      if (biases) bias[c] = biases[c];
    }
  }
};

// Calls body(full, channel, lanes) for sixteen channels at a time; full is std::true_type where all lanes are there.
template <typename Body>
inline void for_each_column(int channels, Body body) {
  int channel = 0;
  for (; channel + LANES <= channels; channel += LANES) body(std::true_type{}, channel, LANES);
  if (channel < channels) body(std::false_type{}, channel, channels - channel);
}

// The first pixel of x in the window of a pooled one.
template <bool POOL>
inline int64_t window_of(int64_t pixel, const PoolShape& shape) {
  if (!POOL) return pixel;
  const int64_t line = pixel / shape.columns;
  return (line / shape.rows * shape.height + line % shape.rows * 2) * shape.width + pixel % shape.columns * 2;
}

// The place of the maximum of each lane, 0 to 3, in Words. The first of equal ones wins, and NaN over all numbers.
struct Codes {
  Words parts[PARTS];

  // Two bits each, the first lane's lowest.
  void pack(uint8_t* to, int lanes) const {
    uint8_t bytes[LANES / 4];
    for (int i = 0; i < PARTS; ++i) {
      const PartBytes narrow = __builtin_convertvector(parts[i], PartBytes);
      uint32_t words[PART / 4];
      std::memcpy(words, &narrow, sizeof(words));
      for (int j = 0; j < PART / 4; ++j) bytes[i * PART / 4 + j] = static_cast<uint8_t>((words[j] * 0x01041040u) >> 24);
    }
    std::memcpy(to, bytes, (lanes + 3) / 4);
  }

  static Codes unpack(const uint8_t* from, int lanes) {
    uint32_t bits = 0;
    std::memcpy(&bits, from, (lanes + 3) / 4);
    Codes result;
    for (int i = 0; i < PARTS; ++i) {
      const Words shifts = {0, 2, 4, 6, 8, 10, 12, 14};
      result.parts[i] = ((bits >> 2 * PART * i) - Words{}) >> shifts & 3;
    }
    return result;
  }
};

template <bool POOL, bool FULL, typename T>
inline Lanes pooled_lanes(const T* x, const PoolShape& shape, int lanes, Codes& codes) {
  Lanes most = load<FULL>(x, lanes);
  if (!POOL) return most;
  const int64_t step = shape.channels, down = static_cast<int64_t>(shape.width) * step;
  const T* others[] = {x + step, x + down, x + down + step};
  for (Words& part : codes.parts) part = Words{};
  for (uint32_t place = 1; place < WINDOW; ++place) {
    const Lanes value = load<FULL>(others[place - 1], lanes);
    for (int i = 0; i < PARTS; ++i) {
      const Floats& v = value.parts[i];
      const Words more = (Words)(v > most.parts[i]) | (Words)(v != v);
      most.parts[i] = (Floats)((more & (Words)v) | (~more & (Words)most.parts[i]));
      codes.parts[i] = (more & place) | (~more & codes.parts[i]);
    }
  }
  return most;
}

// The pooled first pixel.
template <typename T>
void first_pixel(const T* x, const PoolShape& shape, float* pixel) {
  const int64_t step = shape.channels, down = static_cast<int64_t>(shape.width) * step;
  for (int channel = 0; channel < shape.channels; ++channel, ++x) {
    pixel[channel] = static_cast<float>(x[0]);
    for (int64_t other : {step, down, down + step}) {
      const float value = shape.pool ? static_cast<float>(x[other]) : pixel[channel];
      if (value > pixel[channel] || value != value) pixel[channel] = value;
    }
  }
}

// Adds the differences from `shift` of lines, and their squares, to sums [2, C], which are 0; stores pooled and codes.
template <typename T, bool POOL>
ATELIER_EVERY_PROCESSOR void add_up_lines(
    const PoolPointers<T>& p, const PoolShape& shape, const float* shift, int64_t first, int64_t last, float* sums) {
  float* squares = sums + shape.channels;
  for (int64_t pixel = first * shape.columns; pixel < last * shape.columns; ++pixel) {
    const T* x = p.x + window_of<POOL>(pixel, shape) * shape.channels;
    T* pooled = p.pooled + pixel * shape.channels;
    uint8_t* bytes = p.codes + pixel * shape.bytes;
    for_each_column(shape.channels, [&](auto full, int channel, int lanes) {
      constexpr bool FULL = decltype(full)::value;
      Codes codes;
      const Lanes value = pooled_lanes<POOL, FULL>(x + channel, shape, lanes, codes);
      const Lanes difference = value - load<FULL>(shift + channel, lanes);
      store<FULL>(load<FULL>(sums + channel, lanes) + difference, sums + channel, lanes);
      store<FULL>(load<FULL>(squares + channel, lanes) + difference * difference, squares + channel, lanes);
      if (!POOL) return;
      store<FULL>(value, pooled + channel, lanes);
      codes.pack(bytes + channel / 4, lanes);
    });
  }
}

// Writes y of pooled lines.
template <typename T>
ATELIER_EVERY_PROCESSOR void write_lines(
    const PoolPointers<T>& p, const PoolShape& shape, const PoolNumbers& numbers, int64_t first, int64_t last) {
  for (int64_t pixel = first * shape.columns; pixel < last * shape.columns; ++pixel) {
    for_each_column(shape.channels, [&](auto full, int channel, int lanes) {
      constexpr bool FULL = decltype(full)::value;
      const int64_t at = pixel * shape.channels + channel;
      const Lanes centered = load<FULL>(p.x + at, lanes) - load<FULL>(&numbers.mean[channel], lanes);
      const Lanes value =
          centered * load<FULL>(&numbers.scale[channel], lanes) + load<FULL>(&numbers.bias[channel], lanes);
      store<FULL>(numbers.gelu ? activated<true>(value) : activated<false>(value), p.out + at, lanes);
    });
  }
}

// The gradient before the activation, which is computed again; and x - mean. at: of sixteen channels.
template <bool FULL, typename T>
inline Lanes pool_gradient(
    const PoolPointers<T>& p, int64_t at, int channel, int lanes, const PoolNumbers& numbers, Lanes& centered) {
  centered = load<FULL>(p.x + at, lanes) - load<FULL>(&numbers.mean[channel], lanes);
  const Lanes scale = load<FULL>(&numbers.scale[channel], lanes), bias = load<FULL>(&numbers.bias[channel], lanes);
  const Lanes grad = load<FULL>(p.grad + at, lanes), value = centered * scale + bias;
  return numbers.gelu ? activation_gradient<true>(grad, value) : activation_gradient<false>(grad, value);
}

// Writes the gradients before the activation of lines, and adds them and their products with x - mean to sums [2, C].
template <typename T>
ATELIER_EVERY_PROCESSOR void add_up_gradient_lines(
    const PoolPointers<T>& p, const PoolShape& shape, const PoolNumbers& numbers, int64_t first, int64_t last,
    float* sums) {
  float* products = sums + shape.channels;
  for (int64_t pixel = first * shape.columns; pixel < last * shape.columns; ++pixel) {
    for_each_column(shape.channels, [&](auto full, int channel, int lanes) {
      constexpr bool FULL = decltype(full)::value;
      const int64_t at = pixel * shape.channels + channel;
      Lanes centered;
      const Lanes before = pool_gradient<FULL>(p, at, channel, lanes, numbers, centered);
      store<FULL>(before, p.before + at, lanes);
      store<FULL>(load<FULL>(sums + channel, lanes) + before, sums + channel, lanes);
      store<FULL>(load<FULL>(products + channel, lanes) + before * centered, products + channel, lanes);
    });
  }
}

// Sets the pixels of x behind the last windows of a line to 0, which no window holds.
template <typename T>
void clear_rest(T* out, int64_t line, const PoolShape& shape) {
  const int64_t row = static_cast<int64_t>(shape.width) * shape.channels;
  if (shape.width % 2) {
    std::fill(out + row - shape.channels, out + row, T(0.0f));
    std::fill(out + 2 * row - shape.channels, out + 2 * row, T(0.0f));
  }
  if (shape.height % 2 && line % shape.rows == shape.rows - 1) std::fill(out + 2 * row, out + 3 * row, T(0.0f));
}

// Writes the gradient of x.
template <typename T, bool POOL>
ATELIER_EVERY_PROCESSOR void write_gradient_lines(
    const PoolPointers<T>& p, const PoolShape& shape, const PoolNumbers& numbers, int64_t first, int64_t last) {
  const int64_t step = shape.channels, down = shape.width * step;
  for (int64_t pixel = first * shape.columns; pixel < last * shape.columns; ++pixel) {
    T* out = p.out + window_of<POOL>(pixel, shape) * step;
    if (POOL && pixel % shape.columns == 0) clear_rest(out, pixel / shape.columns, shape);
    for_each_column(shape.channels, [&](auto full, int channel, int lanes) {
      constexpr bool FULL = decltype(full)::value;
      const int64_t at = pixel * step + channel;
      Lanes result = load<FULL>(&numbers.scale[channel], lanes) * load<FULL>(p.before + at, lanes);
      if (numbers.training) {
        const Lanes centered = load<FULL>(p.x + at, lanes) - load<FULL>(&numbers.mean[channel], lanes);
        const Lanes slope = load<FULL>(&numbers.slope[channel], lanes);
        result = result - (load<FULL>(&numbers.constant[channel], lanes) + centered * slope);
      }
      if (!POOL) return store<FULL>(result, out + channel, lanes);
      const Codes codes = Codes::unpack(p.codes + pixel * shape.bytes + channel / 4, lanes);
      T* places[WINDOW] = {out + channel, out + step + channel, out + down + channel, out + down + step + channel};
      for (uint32_t place = 0; place < WINDOW; ++place) {
        const Lanes part = each([&](int i, Floats& part) {
          part = (Floats)((Words)(codes.parts[i] == place) & (Words)result.parts[i]);
        });
        store<FULL>(part, places[place], lanes);
      }
    });
  }
}

}  // namespace atelier
