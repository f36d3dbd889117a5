// The kernel of augment: a block for a picture, which is read once and written in the widest stores there are.
#pragma once

#include <cassert>
#include <cstdint>

#include "augment.h"
#include "vector.cuh"

namespace atelier {

constexpr int AUGMENT_THREADS = 192;  // times 16 bytes: a picture of 32×32 in three channels
constexpr int STAGED_BYTES = 12 << 10;
constexpr int STAGED_CHANNELS = 4;

// All threads copy `count` numbers into shared memory.
template <typename T>
__device__ void stage(T* to, const T* from, int count) {
  constexpr int V = WIDEST<T>;
  const int num_vectors = aligned(from) ? count / V : 0;
  for (int i = threadIdx.x; i < num_vectors; i += blockDim.x) {
    reinterpret_cast<Vector<T, V>*>(to)[i] = reinterpret_cast<const Vector<T, V>*>(from)[i];
  }
  for (int i = num_vectors * V + threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
}

// Blocks: (pictures, parts of a picture). V divides the numbers of a picture. STAGED: picture and table fit into shared
// memory, and there is one part.
template <typename Word, int V, bool STAGED>
__global__ void augment_kernel(
    const uint8_t* __restrict__ images, const int64_t* __restrict__ indices, const int64_t* __restrict__ params,
    const Word* __restrict__ table, Word* __restrict__ out, int64_t num_images, Picture picture) {
  alignas(WIDE_BYTES) __shared__ uint8_t staged_picture[STAGED ? STAGED_BYTES : 1];
  alignas(WIDE_BYTES) __shared__ Word staged_table[STAGED ? STAGED_CHANNELS * TABLE : 1];
  const int64_t n = blockIdx.x;
  assert(indices[n] >= 0 && indices[n] < num_images && "augment: an index is out of range");
  assert(Choice::valid(params + n * CHOICES, picture) && "augment: a parameter is out of range");
  const Choice choice(params + n * CHOICES, picture);
  const int numel = static_cast<int>(picture.numel()), channels = picture.channels;
  const uint8_t* source = images + indices[n] * numel;
  const Word* values = table;
  if (STAGED) {
    stage(staged_picture, source, numel);
    stage(staged_table, table, channels * TABLE);
    __syncthreads();
    source = staged_picture;
    values = staged_table;
  }
  auto* to = reinterpret_cast<Vector<Word, V>*>(out + n * numel);
  for (int vector = blockIdx.y * blockDim.x + threadIdx.x; vector < numel / V; vector += blockDim.x * gridDim.y) {
    const int pixel = vector * V / channels;
    int channel = vector * V - pixel * channels, row = pixel / picture.width, column = pixel - row * picture.width;
    Vector<Word, V> result;
    const uint8_t* from = source + choice.source_pixel(row, column, picture) * channels;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (channel == channels) {
        channel = 0;
        if (++column == picture.width) column = 0, ++row;
        from = source + choice.source_pixel(row, column, picture) * channels;
      }
      result.values[i] = choice.cuts(row, column) ? Word{0} : values[channel * TABLE + from[channel]];
      ++channel;
    }
    to[vector] = result;
  }
}

}  // namespace atelier
