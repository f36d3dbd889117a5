// augment on a CPU: a picture after the other, each on one thread. Values are only moved, so words stand for numbers.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <vector>

#include "augment.h"

namespace atelier {
namespace {

using torch::stable::Tensor;
constexpr int64_t PICTURES_A_TASK = 8;

// CHANNELS: those of the picture where it is known at compile time, else 0.
template <typename Word, int CHANNELS>
void augment_one(
    const uint8_t* source, const Word* table, Word* out, const Picture& picture, const Choice& choice,
    std::vector<int>& columns) {
  const int channels = CHANNELS ? CHANNELS : picture.channels;
  for (int column = 0; column < picture.width; ++column) {
    columns[column] = choice.source_column(column, picture) * channels;
  }
  for (int row = 0; row < picture.height; ++row) {
    const uint8_t* line = source + static_cast<int64_t>(choice.source_row(row, picture)) * picture.width * channels;
    Word* begin = out;
    for (int column = 0; column < picture.width; ++column) {
      const uint8_t* pixel = line + columns[column];
      for (int channel = 0; channel < channels; ++channel) *out++ = table[channel * TABLE + pixel[channel]];
    }
    if (row >= choice.cut_top && row < choice.cut_bottom) {
      std::fill(begin + choice.cut_left * channels, begin + choice.cut_right * channels, Word{0});
    }
  }
}

template <typename Word, int CHANNELS>
void augment_all(
    const uint8_t* images, const int64_t* indices, const int64_t* params, const Word* table, Word* out, int64_t num,
    const Picture& picture) {
  torch::stable::parallel_for(0, num, PICTURES_A_TASK, [&](int64_t begin, int64_t end) {
    std::vector<int> columns(picture.width);
    for (int64_t n = begin; n < end; ++n) {
      const Choice choice(params + n * CHOICES, picture);
      augment_one<Word, CHANNELS>(
          images + indices[n] * picture.numel(), table, out + n * picture.numel(), picture, choice, columns);
    }
  });
}

template <typename Word>
void augment_words(
    const uint8_t* images, const int64_t* indices, const int64_t* params, const void* table, void* out, int64_t num,
    const Picture& picture) {
  auto all = picture.channels == 3 ? augment_all<Word, 3>
      : picture.channels == 1      ? augment_all<Word, 1>
                                   : augment_all<Word, 0>;
  all(images, indices, params, static_cast<const Word*>(table), static_cast<Word*>(out), num, picture);
}

Tensor augment(
    const Tensor& images, const Tensor& indices, const Tensor& params, const Tensor& table, int64_t padding,
    int64_t cutout) {
  STD_TORCH_CHECK(
      images.is_contiguous() && indices.is_contiguous() && params.is_contiguous() && table.is_contiguous(),
      "augment: must be contiguous");
  const int64_t num = indices.size(0);
  const Picture picture{
      static_cast<int>(images.size(1)), static_cast<int>(images.size(2)), static_cast<int>(images.size(3)),
      static_cast<int>(padding), cutout};
  Tensor out = torch::stable::empty(
      {num, images.size(3), images.size(1), images.size(2)}, table.scalar_type(), std::nullopt, images.device(),
      std::nullopt, torch::headeronly::MemoryFormat::ChannelsLast);
  const auto* rows = static_cast<const int64_t*>(indices.data_ptr());
  const auto* choices = static_cast<const int64_t*>(params.data_ptr());
  for (int64_t n = 0; n < num; ++n) {
    STD_TORCH_CHECK(rows[n] >= 0 && rows[n] < images.size(0), "indices[", n, "] = ", rows[n], " is out of range");
    STD_TORCH_CHECK(Choice::valid(choices + n * CHOICES, picture), "params[", n, "] is out of range");
  }
  const auto* bytes = static_cast<const uint8_t*>(images.data_ptr());
  auto words = table.element_size() == 2 ? augment_words<uint16_t>
      : table.element_size() == 4        ? augment_words<uint32_t>
                                         : augment_words<uint64_t>;
  words(bytes, rows, choices, table.data_ptr(), out.data_ptr(), num, picture);
  return out;
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CPU, m) {
  m.impl("augment", TORCH_BOX(&atelier::augment));
}
