// The kernels of pool_norm_act. Forward: one that pools and adds up, one that finishes the sums, one that writes;
// backward the same. Blocks leave partial sums, which are added in their order: no atomics, the same bits each time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "activation.h"
#include "instance_norm.h"
#include "pool_norm.h"
#include "vector.cuh"

namespace atelier {

constexpr int POOL_THREADS = 256;
constexpr int FINISH_CHANNELS = 8;  // of a block that finishes sums

// The work is divided into blocks of `tile` groups of channels and `length` pooled pixels, a chunk.
struct PoolWork {
  PoolShape shape;
  int groups, tile, tiles, chunks;
  uint32_t pixels, length;

  // A division into about so many blocks. It depends on the size alone, and so do the last bits of results.
  PoolWork(const PoolShape& shape, int V, int threads, int64_t blocks)
      : shape(shape),
        groups((shape.channels + V - 1) / V),
        tile(groups < threads ? groups : threads),
        tiles((groups + tile - 1) / tile),
        pixels(static_cast<uint32_t>(shape.pixels())) {
    const uint32_t wanted = static_cast<uint32_t>((blocks + tiles - 1) / tiles), lanes = threads / tile;
    const uint32_t most = (pixels + lanes - 1) / lanes, number = wanted < most ? wanted : most;
    length = number > 1 ? (pixels + number - 1) / number : pixels;
    chunks = static_cast<int>((pixels + length - 1) / length);
  }

  unsigned num_blocks() const {
    return static_cast<unsigned>(tiles) * chunks;
  }
};

// A group of V channels in memory. WIDE: V divides the channels, and one instruction moves a group.
template <typename T, int V, bool WIDE>
struct Groups {
  using Code = std::conditional_t<V == 8, uint16_t, uint8_t>;
  int channels, groups;

  __device__ Vector<T, V> load(const T* from, int64_t pixel, int group) const {
    if constexpr (WIDE) {
      return reinterpret_cast<const Vector<T, V>*>(from)[pixel * groups + group];
    } else {
      Vector<T, V> result;
      for (int k = 0; k < V; ++k) {
        const int channel = group * V + k;
        result.values[k] = channel < channels ? from[pixel * channels + channel] : static_cast<T>(0.0f);
      }
      return result;
    }
  }

  __device__ void store(const Vector<T, V>& numbers, T* to, int64_t pixel, int group) const {
    if constexpr (WIDE) {
      reinterpret_cast<Vector<T, V>*>(to)[pixel * groups + group] = numbers;
    } else {
      for (int k = 0; k < V; ++k) {
        if (group * V + k < channels) to[pixel * channels + group * V + k] = numbers.values[k];
      }
    }
  }
};

// Where a thread works: on every so many pixels of one group.
template <typename T, int V, bool WIDE>
struct PoolPlace {
  Groups<T, V, WIDE> memory;
  uint32_t first, last;
  int chunk, group, lane, lanes;

  __device__ explicit PoolPlace(const PoolWork& work) : memory{work.shape.channels, work.groups} {
    chunk = blockIdx.x % work.chunks;
    lanes = blockDim.x / work.tile;
    lane = threadIdx.x / work.tile;
    group = blockIdx.x / work.chunks * work.tile + threadIdx.x % work.tile;
    first = chunk * work.length + lane;
    last = chunk * work.length + work.length;
    if (last > work.pixels) last = work.pixels;
    if (lane >= lanes || group >= work.groups) last = 0;
  }

  // Calls body(pixel, load(pixel)) for each pixel of the thread; UNROLL loads are on their way at a time.
  template <int UNROLL, typename Load, typename Body>
  __device__ void for_each_pixel(Load load, Body body) const {
    for (uint32_t pixel = first; pixel < last; pixel += UNROLL * lanes) {
      decltype(load(pixel)) read[UNROLL];
#pragma unroll
      for (int u = 0; u < UNROLL; ++u) {
        if (pixel + u * lanes < last) read[u] = load(pixel + u * lanes);
      }
#pragma unroll
      for (int u = 0; u < UNROLL; ++u) {
        if (pixel + u * lanes < last) body(pixel + u * lanes, read[u]);
      }
    }
  }
};

// The first pixel of x in the window of a pooled one.
__device__ inline int64_t window_of(uint32_t pixel, const PoolShape& shape, uint32_t& row, uint32_t& column) {
  const uint32_t line = pixel / shape.columns, sample = line / shape.rows;
  row = line - sample * shape.rows;
  column = pixel - line * shape.columns;
  return (static_cast<int64_t>(sample) * shape.height + 2 * row) * shape.width + 2 * column;
}

// A pooled pixel of x and the places of its maxima. The first of equal ones wins, and NaN wins over all numbers.
template <typename T, int V>
struct Pooled {
  Vector<T, V> values;
  uint32_t codes;
};

template <bool POOL, typename T, int V, bool WIDE>
__device__ Pooled<T, V> pooled_at(
    const T* x, uint32_t pixel, const PoolShape& shape, int group, const Groups<T, V, WIDE>& memory) {
  if (!POOL) return {memory.load(x, pixel, group), 0};
  uint32_t row, column;
  const int64_t at = window_of(pixel, shape, row, column);
  const Vector<T, V> window[WINDOW] = {
      memory.load(x, at, group), memory.load(x, at + 1, group), memory.load(x, at + shape.width, group),
      memory.load(x, at + shape.width + 1, group)};
  Pooled<T, V> result{window[0], 0};
#pragma unroll
  for (int k = 0; k < V; ++k) {
    float most = static_cast<float>(window[0].values[k]);
    uint32_t code = 0;
#pragma unroll
    for (int i = 1; i < WINDOW; ++i) {
      const float value = static_cast<float>(window[i].values[k]);
      if (value > most || value != value) most = value, code = i;
    }
    result.values.values[k] = static_cast<T>(most);
    result.codes |= code << 2 * k;
  }
  return result;
}

// Adds up over the lanes of a block, and stores the sums of each group: partial [chunks, 2, groups * V].
template <typename T, int V, bool WIDE>
__device__ void store_pool_sums(
    const float (&first)[V], const float (&second)[V], float* partial, const PoolPlace<T, V, WIDE>& place,
    const PoolWork& work) {
  __shared__ float sums[2 * V][POOL_THREADS];
  for (int k = 0; k < V; ++k) {
    sums[k][threadIdx.x] = first[k];
    sums[V + k][threadIdx.x] = second[k];
  }
  for (int active = place.lanes; active > 1;) {
    const int half = (active + 1) / 2;
    __syncthreads();
    if (place.lane < active - half) {
      for (int k = 0; k < 2 * V; ++k) sums[k][threadIdx.x] += sums[k][threadIdx.x + half * work.tile];
    }
    active = half;
  }
  if (place.lane != 0 || place.group >= work.groups) return;
  float* to = partial + static_cast<int64_t>(place.chunk) * 2 * work.groups * V + place.group * V;
  for (int k = 0; k < V; ++k) {
    to[k] = sums[k][threadIdx.x];
    to[work.groups * V + k] = sums[V + k][threadIdx.x];
  }
}

// Calls finish(channel, sum, sum) with the sums over all chunks. Blocks of POOL_THREADS for FINISH_CHANNELS each.
template <typename Finish>
__device__ void finish_pool_sums(const float* partial, int chunks, int padded, int channels, Finish finish) {
  __shared__ double sums[2][POOL_THREADS];
  const int channel = blockIdx.x * FINISH_CHANNELS + threadIdx.x % FINISH_CHANNELS;
  const int lane = threadIdx.x / FINISH_CHANNELS, lanes = blockDim.x / FINISH_CHANNELS;
  double first = 0, second = 0;
#pragma unroll 4
  for (int chunk = lane; channel < channels && chunk < chunks; chunk += lanes) {
    const float* from = partial + static_cast<int64_t>(chunk) * 2 * padded + channel;
    first += static_cast<double>(from[0]);
    second += static_cast<double>(from[padded]);
  }
  sums[0][threadIdx.x] = first;
  sums[1][threadIdx.x] = second;
  __syncthreads();
  if (lane != 0 || channel >= channels) return;
  for (int other = 1; other < lanes; ++other) {
    first += sums[0][threadIdx.x + other * FINISH_CHANNELS];
    second += sums[1][threadIdx.x + other * FINISH_CHANNELS];
  }
  finish(channel, first, second);
}

// Stores the pooled x (where it is pooled), its codes, and partial sums of its differences from the first pixel.
template <typename T, int V, bool WIDE, bool POOL>
__global__ void __launch_bounds__(POOL_THREADS, 3) pool_sums_kernel(
    const T* __restrict__ x, T* __restrict__ pooled, uint8_t* __restrict__ codes, float* __restrict__ partial,
    PoolWork work) {
  const PoolPlace<T, V, WIDE> place(work);
  float shift[V] = {}, sum[V] = {}, square[V] = {};
  if (place.first < place.last) {
    const Pooled<T, V> start = pooled_at<POOL>(x, 0, work.shape, place.group, place.memory);
    for (int k = 0; k < V; ++k) shift[k] = static_cast<float>(start.values.values[k]);
  }
  place.template for_each_pixel<2>(
      [&](uint32_t pixel) { return pooled_at<POOL>(x, pixel, work.shape, place.group, place.memory); },
      [&](uint32_t pixel, const Pooled<T, V>& found) {
#pragma unroll
        for (int k = 0; k < V; ++k) {
          const float difference = static_cast<float>(found.values.values[k]) - shift[k];
          sum[k] += difference;
          square[k] += difference * difference;
        }
        if (!POOL) return;
        using Code = typename Groups<T, V, WIDE>::Code;
        place.memory.store(found.values, pooled, pixel, place.group);
        reinterpret_cast<Code*>(codes)[static_cast<int64_t>(pixel) * work.groups + place.group] =
            static_cast<Code>(found.codes);
      });
  store_pool_sums(sum, square, partial, place, work);
}

// Writes statistics [3, C]: mean, 1 / deviation and unbiased variance. pooled: x where it is not pooled.
template <typename T>
__global__ void pool_statistics_kernel(
    const float* __restrict__ partial, const T* __restrict__ pooled, float* __restrict__ statistics, PoolWork work,
    int padded, double eps) {
  const int channels = work.shape.channels;
  finish_pool_sums(partial, work.chunks, padded, channels, [&](int channel, double sum, double square) {
    finish_pool_statistics(
        sum, square, static_cast<float>(pooled[channel]), work.pixels, eps, statistics[channel],
        statistics[channels + channel], statistics[2 * channels + channel]);
  });
}

// The same from running averages.
__global__ void pool_known_statistics_kernel(
    const float* mean, const float* variance, float* statistics, int channels, double eps) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  if (channel >= channels) return;
  statistics[channel] = mean[channel];
  statistics[channels + channel] = static_cast<float>(1.0 / std::sqrt(variance[channel] + eps));
  statistics[2 * channels + channel] = variance[channel];
}

}  // namespace atelier
