// Where one output of crop_resize comes from, and with what weights. Shared by the CPU kernel and the CUDA kernel.
#pragma once

#include <torch/headeronly/macros/Macros.h>

#include <cmath>
#include <cstdint>

namespace atelier {

constexpr int RGB = 3;
constexpr int LEVELS = 256;  // values of a byte

// The pixels of an axis that one output position is made of: `count` from `first` on. Weights fall linearly from the
// center of the position to one output pixel (or one pixel, if that is more) to both sides.
struct Span {
  int first, count;
  float start, inverse;
  bool inside;  // whether the center lies in the image

  // The k-th pixel's weight, not yet divided by the sum of all.
  C10_HOST_DEVICE float weight(int k) const {
    const float distance = start + static_cast<float>(k), value = 1.0f - (distance < 0 ? -distance : distance) * inverse;
    return value < 0.0f ? 0.0f : value;
  }
};

// One axis of a box, resized to `num` positions. Pixels beyond the box, in whole pixels, do not count: the box is cut
// out first.
struct Axis {
  double low, scale;
  int begin, end, size, num;

  C10_HOST_DEVICE Axis(float low, float high, int64_t size, int64_t num)
      : low(low),
        scale((static_cast<double>(high) - low) / static_cast<double>(num)),
        begin(bounded(std::floor(low), size)),
        end(bounded(std::ceil(high), size)),
        size(static_cast<int>(size)),
        num(static_cast<int>(num)) {}

  C10_HOST_DEVICE static int bounded(double position, int64_t size) {
    return static_cast<int>(position < 0 ? 0 : position > static_cast<double>(size) ? size : position);
  }

  C10_HOST_DEVICE int within(double position) const {
    return position < begin ? begin : position > end ? end : static_cast<int>(position);
  }

  C10_HOST_DEVICE Span span(int position) const {
    const double reach = scale < 1 ? 1 : scale, center = low + (position + 0.5) * scale;
    Span result;
    result.first = within(std::floor(center - reach + 0.5));
    result.count = within(std::floor(center + reach + 0.5)) - result.first;
    result.start = static_cast<float>(result.first + 0.5 - center);
    result.inverse = static_cast<float>(1 / reach);
    result.inside = center >= 0 && center < size && result.count > 0;
    return result;
  }
};

// The tensors of a call. flips, colors and erased may be null.
struct CropInputs {
  const uint8_t* pixels;
  const int64_t *offsets, *sizes, *indices;
  const float* boxes;
  const bool* flips;
  const float* colors;
  const int64_t* erased;
  int64_t num_bytes, num_images;
  int height, width;  // of outputs

  // Whether everything that output n names is there.
  C10_HOST_DEVICE bool valid(int64_t n) const {
    const int64_t image = indices[n];
    if (image < 0 || image >= num_images) return false;
    const int64_t high = sizes[2 * image], wide = sizes[2 * image + 1], limit = int64_t{1} << 30;
    if (high < 1 || wide < 1 || high > limit || wide > limit || offsets[image] < 0) return false;
    const float* box = boxes + 4 * n;
    for (int i = 0; i < 4; ++i) {
      if (!(std::fabs(box[i]) <= 1e9f)) return false;
    }
    return high * wide * RGB <= num_bytes - offsets[image] && box[2] > box[0] && box[3] > box[1];
  }

  // Of output n: its image, the bytes of a row of it, and the two axes.
  C10_HOST_DEVICE const uint8_t* image(int64_t n) const {
    return pixels + offsets[indices[n]];
  }

  C10_HOST_DEVICE int64_t stride(int64_t n) const {
    return sizes[2 * indices[n] + 1] * RGB;
  }

  C10_HOST_DEVICE Axis down(int64_t n) const {
    return Axis(boxes[4 * n + 1], boxes[4 * n + 3], sizes[2 * indices[n]], height);
  }

  C10_HOST_DEVICE Axis across(int64_t n) const {
    return Axis(boxes[4 * n], boxes[4 * n + 2], sizes[2 * indices[n] + 1], width);
  }

  C10_HOST_DEVICE bool erases(int64_t n, int row, int column) const {
    if (!erased) return false;
    const int64_t* box = erased + 4 * n;
    return column >= box[0] && row >= box[1] && column < box[2] && row < box[3];
  }
};

// Rounds to the nearest level; NaN becomes 0.
C10_HOST_DEVICE inline int level_of(float value) {
  return value > 0.0f ? static_cast<int>((value < 255.0f ? value : 255.0f) + 0.5f) : 0;
}

}  // namespace atelier
