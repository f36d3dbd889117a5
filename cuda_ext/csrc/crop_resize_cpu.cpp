// crop_resize on a CPU: an output after the other, each on one thread. For each of its rows the rows of the image are
// added up in 16-bit numbers, a whole row at a time, and then the columns in floats, the channels of a pixel together.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "crop_resize.h"
#include "lanes.h"

namespace atelier {
namespace {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
typedef float Pixel __attribute__((vector_size(16)));  // three channels, and one number that is not used
typedef int Levels __attribute__((vector_size(16)));
constexpr float FRACTION = 1.0f / 256;  // sums of rows count 256ths of a level
constexpr double WHOLE = 65536;
constexpr int ROWS = 64;

// One output. color: [3, 4], or null; then what is erased.
struct Crop {
  const uint8_t* image;
  int64_t stride;
  Axis down, across;
  bool flip;
  const float* color;
  int64_t left, top, right, bottom;

  Crop(const CropInputs& in, int64_t n)
      : image(in.image(n)),
        stride(in.stride(n)),
        down(in.down(n)),
        across(in.across(n)),
        flip(in.flips && in.flips[n]),
        color(in.colors ? in.colors + 12 * n : nullptr),
        left(in.erased ? in.erased[4 * n] : 0),
        top(in.erased ? in.erased[4 * n + 1] : 0),
        right(in.erased ? in.erased[4 * n + 2] : 0),
        bottom(in.erased ? in.erased[4 * n + 3] : 0) {}
};

// The spans of all positions of an axis, and for each `taps` weights that add up to 1; the last may be 0.
struct Spans {
  std::vector<Span> spans;
  std::vector<float> weights;
  int taps;
  bool all_inside;

  void fill(const Axis& axis) {
    spans.clear();
    taps = 0;
    all_inside = true;
    for (int position = 0; position < axis.num; ++position) {
      spans.push_back(axis.span(position));
      taps = std::max(taps, spans.back().count);
      all_inside = all_inside && spans.back().inside;
    }
    weights.assign(static_cast<size_t>(axis.num) * taps, 0.0f);
    for (int position = 0; position < axis.num; ++position) {
      float* to = &weights[static_cast<size_t>(position) * taps];
      float sum = 0;
      for (int k = 0; k < spans[position].count; ++k) sum += to[k] = spans[position].weight(k);
      for (int k = 0; k < spans[position].count; ++k) to[k] /= sum;
    }
  }
};

// What a thread works with.
struct Workplace {
  Spans down, across;
  std::vector<uint16_t> sums;
  std::vector<float> line;
  std::vector<Levels> levels;
};

uint16_t fixed(float weight) {
  return static_cast<uint16_t>(std::min(WHOLE - 1, std::round(weight * WHOLE)));
}

inline uint16_t share(uint8_t byte, uint16_t weight) {
  return static_cast<uint16_t>(static_cast<uint32_t>(byte << 8) * weight >> 16);
}

// Adds the weighted sum of rows of bytes to a line of levels. Up to ROWS of them, or sums would not fit.
inline void add_rows(
    const uint8_t* rows, int64_t stride, int count, const float* weights, int num, uint16_t* sums, float* line) {
  float total = 0;
  for (int k = 0; k < count; ++k) total += weights[k];
  if (!(total > 0)) return;
  std::fill_n(sums, num, static_cast<uint16_t>(count / 2));  // what cutting off costs, on average
  int k = 0;
  for (; k + 1 < count; k += 2) {
    const uint16_t first = fixed(weights[k] / total), second = fixed(weights[k + 1] / total);
    const uint8_t *above = rows + k * stride, *below = above + stride;
    for (int i = 0; i < num; ++i) {
      sums[i] = static_cast<uint16_t>(sums[i] + share(above[i], first) + share(below[i], second));
    }
  }
  if (k < count) {
    const uint16_t weight = fixed(weights[k] / total);
    const uint8_t* row = rows + k * stride;
    for (int i = 0; i < num; ++i) sums[i] = static_cast<uint16_t>(sums[i] + share(row[i], weight));
  }
  const float scale = total * FRACTION;
  for (int i = 0; i < num; ++i) line[i] += static_cast<float>(sums[i]) * scale;
}

// The weighted sum of any number of rows.
ATELIER_EVERY_PROCESSOR void add_up_rows(
    const uint8_t* rows, int64_t stride, int count, const float* weights, int num, uint16_t* sums, float* line) {
  std::fill_n(line, num, 0.0f);
  for (int k = 0; k < count; k += ROWS) {
    add_rows(rows + k * stride, stride, std::min(ROWS, count - k), weights + k, num, sums, line);
  }
}

inline Pixel splat(float value) {
  return value - Pixel{};
}

// Resizes a line to an output's row, in the order of the output. TAPS: those of the spans where they are few, else 0.
template <int TAPS>
inline void resize_line(const Crop& crop, const Spans& across, const float* line, Levels* levels) {
  Pixel color[4] = {};
  for (int i = 0; crop.color && i < 4; ++i) color[i] = Pixel{crop.color[i], crop.color[4 + i], crop.color[8 + i], 0};
  const int width = crop.across.num, taps = TAPS ? TAPS : across.taps, begin = crop.across.begin;
  const float* weights = across.weights.data();
  for (int column = 0; column < width; ++column, weights += taps) {
    const float* from = line + (across.spans[column].first - begin) * RGB;
    Pixel sum = {};
    for (int k = 0; k < taps; ++k) {
      Pixel pixel;
      std::memcpy(&pixel, from + k * RGB, sizeof(pixel));
      sum += splat(weights[k]) * pixel;
    }
    if (crop.color) sum = color[0] * splat(sum[0]) + color[1] * splat(sum[1]) + color[2] * splat(sum[2]) + color[3];
    const Pixel bounded = sum > 0.0f ? (sum < 255.0f ? sum : splat(255.0f)) : Pixel{};
    levels[crop.flip ? width - 1 - column : column] = __builtin_convertvector(bounded + 0.5f, Levels);
  }
}

ATELIER_EVERY_PROCESSOR void resize_any_line(
    const Crop& crop, const Spans& across, const float* line, Levels* levels) {
  switch (across.taps) {
    case 2:
      return resize_line<2>(crop, across, line, levels);
    case 3:
      return resize_line<3>(crop, across, line, levels);
    case 4:
      return resize_line<4>(crop, across, line, levels);
    case 5:
      return resize_line<5>(crop, across, line, levels);
    case 6:
      return resize_line<6>(crop, across, line, levels);
    default:
      return resize_line<0>(crop, across, line, levels);
  }
}

template <typename Word>
void look_up(const Crop& crop, const Spans& across, const Levels* levels, const Word* table, Word* out) {
  const int width = crop.across.num;
  for (int column = 0; column < width; ++column) {
    for (int c = 0; c < RGB; ++c) out[column * RGB + c] = table[c * LEVELS + levels[column][c]];
  }
  for (int column = 0; !across.all_inside && column < width; ++column) {
    if (across.spans[crop.flip ? width - 1 - column : column].inside) continue;
    std::fill_n(out + column * RGB, RGB, Word{0});
  }
}

template <typename Word>
void crop_one(const Crop& crop, const Word* table, Word* out, Workplace& place) {
  const int width = crop.across.num, begin = crop.across.begin, num = (crop.across.end - begin) * RGB;
  place.down.fill(crop.down);
  place.across.fill(crop.across);
  place.sums.resize(num);
  place.line.assign(num + place.across.taps * RGB + 1, 0.0f);  // weights of 0 reach beyond the end
  place.levels.resize(width);
  for (int row = 0; row < crop.down.num; ++row, out += width * RGB) {
    const Span& span = place.down.spans[row];
    if (!span.inside || num == 0) {
      std::fill_n(out, width * RGB, Word{0});
      continue;
    }
    const uint8_t* rows = crop.image + span.first * crop.stride + static_cast<int64_t>(begin) * RGB;
    const float* weights = &place.down.weights[static_cast<size_t>(row) * place.down.taps];
    add_up_rows(rows, crop.stride, span.count, weights, num, place.sums.data(), place.line.data());
    resize_any_line(crop, place.across, place.line.data(), place.levels.data());
    look_up(crop, place.across, place.levels.data(), table, out);
    if (row >= crop.top && row < crop.bottom) {
      const int64_t left = std::clamp<int64_t>(crop.left, 0, width), right = std::clamp<int64_t>(crop.right, left, width);
      std::fill(out + left * RGB, out + right * RGB, Word{0});
    }
  }
}

template <typename Word>
void crop_all(const CropInputs& in, const void* table, void* out, int64_t num) {
  torch::stable::parallel_for(0, num, 1, [&](int64_t first, int64_t last) {
    Workplace place;
    for (int64_t n = first; n < last; ++n) {
      Word* to = static_cast<Word*>(out) + n * in.height * in.width * RGB;
      crop_one(Crop(in, n), static_cast<const Word*>(table), to, place);
    }
  });
}

template <typename T>
const T* pointer(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data_ptr());
}

template <typename T>
const T* pointer(const MaybeTensor& tensor) {
  return tensor ? static_cast<const T*>(tensor->data_ptr()) : nullptr;
}

Tensor crop_resize(
    const Tensor& pixels, const Tensor& offsets, const Tensor& sizes, const Tensor& indices, const Tensor& boxes,
    MaybeTensor flips, MaybeTensor colors, MaybeTensor erased, const Tensor& table, int64_t height, int64_t width) {
  const int64_t num = indices.size(0);
  const CropInputs in{
      pointer<uint8_t>(pixels), pointer<int64_t>(offsets), pointer<int64_t>(sizes),
      pointer<int64_t>(indices), pointer<float>(boxes), pointer<bool>(flips), pointer<float>(colors),
      pointer<int64_t>(erased), pixels.numel(), offsets.size(0), static_cast<int>(height), static_cast<int>(width)};
  for (int64_t n = 0; n < num; ++n) STD_TORCH_CHECK(in.valid(n), "crop_resize: output ", n, " is out of range");
  Tensor out = torch::stable::empty(
      {num, RGB, height, width}, table.scalar_type(), std::nullopt, pixels.device(), std::nullopt,
      torch::headeronly::MemoryFormat::ChannelsLast);
  auto all = table.element_size() == 2 ? crop_all<uint16_t>
      : table.element_size() == 4      ? crop_all<uint32_t>
                                       : crop_all<uint64_t>;
  all(in, table.data_ptr(), out.data_ptr(), num);
  return out;
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CPU, m) {
  m.impl("crop_resize", TORCH_BOX(&atelier::crop_resize));
}
