// The body of the CUDA kernel of crop_resize behind a plain function, run by emulation.h.
#include "emulation.h"

#include "crop_resize.cuh"

using namespace atelier;

extern "C" void emulated_resize(
    const uint8_t* pixels, const int64_t* offsets, const int64_t* sizes, const int64_t* indices, const float* boxes,
    const bool* flips, const float* colors, const int64_t* erased, const float* table, float* out, int64_t num_bytes,
    int64_t num_images, unsigned num, int height, int width, unsigned threads) {
  const CropInputs in{pixels, offsets, sizes, indices, boxes, flips, colors, erased, num_bytes, num_images, height,
                      width};
  const int rows = static_cast<int>(threads) / TILE_COLUMNS, across = (width + TILE_COLUMNS - 1) / TILE_COLUMNS;
  const int tiles = across * ((height + rows - 1) / rows);
  launch(crop_resize_kernel<float>, num * tiles, 1, threads, in, table, out, across, tiles);
}
