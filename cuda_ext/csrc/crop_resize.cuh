// The kernel of crop_resize: a block for a tile of one output. It resizes rows of the image to the tile's columns in
// shared memory, some at a time, and adds them up; so the size of the image does not matter.
#pragma once

#include <cassert>
#include <cstdint>

#include "crop_resize.h"

namespace atelier {

constexpr int TILE_COLUMNS = 32;
constexpr int CROP_THREADS = 256;  // a thread for a pixel of the tile
constexpr int LINES = 24;          // rows of the image at a time

template <typename Word>
__global__ void __launch_bounds__(CROP_THREADS, 4) crop_resize_kernel(
    CropInputs in, const Word* __restrict__ table, Word* __restrict__ out, int tiles_across, int tiles) {
  __shared__ float lines[LINES][RGB][TILE_COLUMNS];
  __shared__ Word results[CROP_THREADS * RGB];
  __shared__ Span columns[TILE_COLUMNS], rows[CROP_THREADS / TILE_COLUMNS];
  __shared__ float scales[TILE_COLUMNS];
  const int64_t n = blockIdx.x / tiles;
  const int tile = blockIdx.x % tiles, tile_rows = blockDim.x / TILE_COLUMNS;
  const int top = tile / tiles_across * tile_rows, left = tile % tiles_across * TILE_COLUMNS;
  const int bottom = top + tile_rows < in.height ? top + tile_rows : in.height;
  const int lane = threadIdx.x / TILE_COLUMNS, place = threadIdx.x % TILE_COLUMNS;
  const int row = top + lane, column = left + place;
  const bool exists = row < in.height && column < in.width;

  // The first warp finds out what the columns are made of, the last one what the rows are.
  if (lane == 0) {
    assert(in.valid(n) && "crop_resize: a number is out of range");
    const int known = column < in.width ? column : in.width - 1;
    const Span span = in.across(n).span(in.flips && in.flips[n] ? in.width - 1 - known : known);
    float sum = 0.0f;
    for (int k = 0; k < span.count; ++k) sum += span.weight(k);
    columns[place] = span;
    scales[place] = sum > 0.0f ? 1.0f / sum : 0.0f;
  }
  if (lane == tile_rows - 1 && place < tile_rows) {
    const int known = top + place < in.height ? top + place : in.height - 1;
    rows[place] = in.down(n).span(known);
  }
  __syncthreads();

  const uint8_t* image = in.image(n);
  const int64_t stride = in.stride(n);
  const Span across = columns[place], down = rows[lane], last = rows[bottom - 1 - top];
  const float scale = scales[place];
  float down_sum = 0.0f, sums[RGB] = {};
  const int end = last.first + last.count;
  for (int begin = rows[0].first; begin < end; begin += LINES) {
    const int count = end - begin < LINES ? end - begin : LINES;
    for (int line = lane; line < count; line += tile_rows) {
      const uint8_t* from = image + (begin + line) * stride + static_cast<int64_t>(across.first) * RGB;
      float red = 0.0f, green = 0.0f, blue = 0.0f;
      for (int k = 0; k < across.count; ++k) {
        const float weight = across.weight(k);
        red += weight * static_cast<float>(from[RGB * k]);
        green += weight * static_cast<float>(from[RGB * k + 1]);
        blue += weight * static_cast<float>(from[RGB * k + 2]);
      }
      lines[line][0][place] = red * scale;
      lines[line][1][place] = green * scale;
      lines[line][2][place] = blue * scale;
    }
    __syncthreads();
    const int low = down.first > begin ? down.first : begin;
    const int high = down.first + down.count < begin + count ? down.first + down.count : begin + count;
    for (int line = low; line < high; ++line) {
      const float weight = down.weight(line - down.first);
      down_sum += weight;
      for (int c = 0; c < RGB; ++c) sums[c] += weight * lines[line - begin][c][place];
    }
    __syncthreads();
  }

  const bool empty = !exists || !across.inside || !down.inside || in.erases(n, row, column);
  float values[RGB];
  for (int c = 0; c < RGB; ++c) values[c] = empty ? 0.0f : sums[c] / down_sum;
  for (int c = 0; c < RGB; ++c) {
    float value = values[c];
    if (in.colors && !empty) {
      const float* factors = in.colors + 12 * n + 4 * c;
      value = factors[0] * values[0] + factors[1] * values[1] + factors[2] * values[2] + factors[3];
    }
    results[threadIdx.x * RGB + c] = empty ? Word{0} : table[c * LEVELS + level_of(value)];
  }
  __syncthreads();

  // Numbers of a row of the tile lie side by side in the output too.
  const int wide = (in.width - left < TILE_COLUMNS ? in.width - left : TILE_COLUMNS) * RGB;
  for (int i = threadIdx.x; i < (bottom - top) * TILE_COLUMNS * RGB; i += blockDim.x) {
    const int line = i / (TILE_COLUMNS * RGB), number = i % (TILE_COLUMNS * RGB);
    if (number < wide) out[((n * in.height + top + line) * in.width + left) * RGB + number] = results[i];
  }
}

}  // namespace atelier
