// What one augmented picture is made of, in whole numbers. Shared by the CPU kernel and the CUDA kernel.
#pragma once

#include <torch/headeronly/macros/Macros.h>

#include <cstdint>

namespace atelier {

constexpr int TABLE = 256;  // values of a byte
constexpr int CHOICES = 5;  // numbers in a row of params

struct Picture {
  int height, width, channels, padding;
  int64_t cutout;

  C10_HOST_DEVICE int64_t numel() const {
    return static_cast<int64_t>(height) * width * channels;
  }
};

// A row of params: where the crop begins, whether it is mirrored, and what is cut out of it.
struct Choice {
  int top, left, cut_top, cut_bottom, cut_left, cut_right;
  bool flip;

  C10_HOST_DEVICE static int clamped(int64_t position, int size) {
    return static_cast<int>(position < 0 ? 0 : position > size ? size : position);
  }

  C10_HOST_DEVICE Choice(const int64_t* row, const Picture& picture)
      : top(static_cast<int>(row[0]) - picture.padding),
        left(static_cast<int>(row[1]) - picture.padding),
        cut_top(clamped(row[3] - picture.cutout / 2, picture.height)),
        cut_bottom(clamped(row[3] - picture.cutout / 2 + picture.cutout, picture.height)),
        cut_left(clamped(row[4] - picture.cutout / 2, picture.width)),
        cut_right(clamped(row[4] - picture.cutout / 2 + picture.cutout, picture.width)),
        flip(row[2] == 1) {}

  C10_HOST_DEVICE static bool valid(const int64_t* row, const Picture& picture) {
    const int64_t highs[CHOICES] = {
        2 * static_cast<int64_t>(picture.padding) + 1, 2 * static_cast<int64_t>(picture.padding) + 1, 2, picture.height,
        picture.width};
    for (int i = 0; i < CHOICES; ++i) {
      if (row[i] < 0 || row[i] >= highs[i]) return false;
    }
    return true;
  }

  // A position outside the picture, mirrored at the border pixel, which is not repeated.
  C10_HOST_DEVICE static int reflected(int position, int size) {
    if (position < 0) position = -position;
    const int mirrored = 2 * (size - 1) - position;
    return position < mirrored ? position : mirrored;
  }

  C10_HOST_DEVICE int source_row(int row, const Picture& picture) const {
    return reflected(top + row, picture.height);
  }

  C10_HOST_DEVICE int source_column(int column, const Picture& picture) const {
    return reflected(left + (flip ? picture.width - 1 - column : column), picture.width);
  }

  C10_HOST_DEVICE int source_pixel(int row, int column, const Picture& picture) const {
    return source_row(row, picture) * picture.width + source_column(column, picture);
  }

  C10_HOST_DEVICE bool cuts(int row, int column) const {
    return row >= cut_top && row < cut_bottom && column >= cut_left && column < cut_right;
  }
};

}  // namespace atelier
