// The kernels of instance_norm_act: forward a launch that adds up and one that writes, and the same backward. Blocks
// leave partial sums, which every block of the second launch adds in their order: no atomics, the same bits each time.
#pragma once

#include <cmath>
#include <cstdint>

#include "instance_norm.h"
#include "vector.cuh"

namespace atelier {

constexpr int NORM_THREADS = 256;

// A dense tensor as [outer, steps, groups, V]. Channels last: an outer is a sample, a step a pixel, a group V channels.
// Otherwise: an outer is the plane of one channel, a step V pixels, and there is one group. The work is divided into
// blocks of one outer, `tile` groups, and `length` steps, a chunk.
struct NormShape {
  int64_t outer, steps, length;
  int groups, tile, tiles, chunks, channels;
  bool channels_last, per_sample;  // per_sample: weight and bias are [N, C]

  // A division into about so many blocks. It depends on the size alone, and so do the last bits of results.
  NormShape(
      int64_t samples, int64_t channels, int64_t pixels, bool channels_last, bool per_sample, int V, int threads,
      int64_t blocks)
      : outer(channels_last ? samples : samples * channels),
        steps(channels_last ? pixels : pixels / V),
        groups(channels_last ? static_cast<int>(channels) / V : 1),
        tile(groups < threads ? groups : threads),
        tiles((groups + tile - 1) / tile),
        channels(static_cast<int>(channels)),
        channels_last(channels_last),
        per_sample(per_sample) {
    // Each block of the second launch reads the partial sums of all chunks: their number grows as the root of the work.
    const auto most = static_cast<int64_t>(std::sqrt(static_cast<double>(steps) / 4));
    const int64_t wanted = (blocks + outer * tiles - 1) / (outer * tiles), number = wanted < most ? wanted : most;
    length = number > 1 ? (steps + number - 1) / number : steps;
    chunks = static_cast<int>((steps + length - 1) / length);
  }

  int64_t num_blocks() const {
    return outer * tiles * chunks;
  }
};

// Where a thread works: on every so many steps of one group. K: the channels of a group, V or 1.
template <int V, int K>
struct Place {
  int64_t outer, first, last, base;
  int chunk, tile_begin, group, lane, lanes;

  __device__ explicit Place(const NormShape& shape) {
    const int64_t block = blockIdx.x / shape.chunks;
    chunk = static_cast<int>(blockIdx.x % shape.chunks);
    outer = block / shape.tiles;
    tile_begin = static_cast<int>(block % shape.tiles) * shape.tile;
    lanes = blockDim.x / shape.tile;
    lane = threadIdx.x / shape.tile;
    group = tile_begin + threadIdx.x % shape.tile;
    first = chunk * shape.length + lane;
    last = chunk * shape.length + shape.length;
    if (last > shape.steps) last = shape.steps;
    if (lane >= lanes || group >= shape.groups) last = 0;
    base = outer * shape.steps * shape.groups + group;
  }

  // Of a vector.
  __device__ int64_t at(int64_t step, const NormShape& shape) const {
    return base + step * shape.groups;
  }

  // Of a channel of this outer in [N, C].
  __device__ int64_t channel(int number, const NormShape& shape) const {
    return outer * shape.groups * K + number;
  }

  // Of a channel of this outer in weight and bias.
  __device__ int64_t parameter(int number, const NormShape& shape) const {
    return shape.per_sample ? channel(number, shape) : shape.channels_last ? number : outer % shape.channels;
  }

  // Of a channel's partial sum in [outer, chunks, 2, groups * K].
  __device__ int64_t partial(int of_chunk, int which, int number, const NormShape& shape) const {
    return ((outer * shape.chunks + of_chunk) * 2 + which) * shape.groups * K + number;
  }
};

// Adds up values over the lanes of a block, and stores those of each group as partial sums.
template <int V, int K>
__device__ void store_sums(
    const float (&first)[K], const float (&second)[K], float* partial, const Place<V, K>& place,
    const NormShape& shape) {
  __shared__ float sums[2 * K][NORM_THREADS];
  for (int k = 0; k < K; ++k) {
    sums[k][threadIdx.x] = first[k];
    sums[K + k][threadIdx.x] = second[k];
  }
  for (int active = place.lanes; active > 1;) {
    const int half = (active + 1) / 2;
    __syncthreads();
    if (place.lane < active - half) {
      for (int k = 0; k < 2 * K; ++k) sums[k][threadIdx.x] += sums[k][threadIdx.x + half * shape.tile];
    }
    active = half;
  }
  if (place.lane != 0 || place.group >= shape.groups) return;
  for (int k = 0; k < K; ++k) {
    partial[place.partial(place.chunk, 0, place.group * K + k, shape)] = sums[k][threadIdx.x];
    partial[place.partial(place.chunk, 1, place.group * K + k, shape)] = sums[K + k][threadIdx.x];
  }
}

// Calls finish(channel of the outer, its place in the tile, sum, sum) for the channels of a block's tile.
template <int V, int K, typename Finish>
__device__ void add_partial_sums(
    const float* partial, const Place<V, K>& place, const NormShape& shape, Finish finish) {
  const int begin = place.tile_begin * K;
  const int end = begin + shape.tile * K < shape.groups * K ? begin + shape.tile * K : shape.groups * K;
  for (int number = begin + threadIdx.x; number < end; number += blockDim.x) {
    double sums[2] = {0, 0};
    for (int chunk = 0; chunk < shape.chunks; ++chunk) {
      sums[0] += static_cast<double>(partial[place.partial(chunk, 0, number, shape)]);
      sums[1] += static_cast<double>(partial[place.partial(chunk, 1, number, shape)]);
    }
    finish(number, number - begin, sums[0], sums[1]);
  }
}

// What a thread's channels are normalized with: (x - mean) * scale + bias.
template <int K>
struct Norm {
  float mean[K], scale[K], bias[K];
};

// What a thread reads at one place. Of what is not there nothing is read.
template <typename T, int V>
struct Numbers {
  Vector<T, V> x, grad, residual;
};

template <typename T, int V>
struct Sources {
  const T *x, *grad, *residual;

  __device__ static Vector<T, V> load(const T* from, int64_t at) {
    return reinterpret_cast<const Vector<T, V>*>(from)[at];
  }

  __device__ Numbers<T, V> operator[](int64_t at) const {
    Numbers<T, V> numbers;
    numbers.x = load(x, at);
    if (grad) numbers.grad = load(grad, at);
    if (residual) numbers.residual = load(residual, at);
    return numbers;
  }
};

// Calls body(at, numbers) for each place of a thread; UNROLL reads are on their way at a time.
template <int UNROLL, typename T, int V, int K, typename Body>
__device__ void for_each_step(
    const Sources<T, V>& sources, const Place<V, K>& place, const NormShape& shape, Body body) {
  for (int64_t step = place.first; step < place.last; step += UNROLL * place.lanes) {
    Numbers<T, V> numbers[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (step + u * place.lanes < place.last) numbers[u] = sources[place.at(step + u * place.lanes, shape)];
    }
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (step + u * place.lanes < place.last) body(place.at(step + u * place.lanes, shape), numbers[u]);
    }
  }
}

template <typename T, int V, int K>
__global__ void __launch_bounds__(NORM_THREADS, 2)
    norm_sums_kernel(const T* __restrict__ x, float* __restrict__ partial, NormShape shape) {
  const Place<V, K> place(shape);
  const Sources<T, V> sources{x, nullptr, nullptr};
  float shift[K] = {}, sum[K] = {}, square[K] = {};  // sums of differences from the first number lose less
  if (place.first < place.last) {
    const Vector<T, V> start = sources[place.at(0, shape)].x;
    for (int k = 0; k < K; ++k) shift[k] = static_cast<float>(start.values[k]);
  }
  for_each_step<4>(sources, place, shape, [&](int64_t, const Numbers<T, V>& numbers) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float difference = static_cast<float>(numbers.x.values[i]) - shift[i % K];
      sum[i % K] += difference;
      square[i % K] += difference * difference;
    }
  });
  store_sums(sum, square, partial, place, shape);
}

// Writes y, and mean and rstd [N, C].
template <typename T, int V, int K>
__global__ void __launch_bounds__(NORM_THREADS, 3) norm_write_kernel(
    const T* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
    const T* __restrict__ residual, const float* __restrict__ partial, T* __restrict__ y, float* __restrict__ mean,
    float* __restrict__ rstd, NormShape shape, bool relu, double eps) {
  __shared__ float tile[3][K * NORM_THREADS];  // mean, scale and bias of the block's channels
  const Place<V, K> place(shape);
  add_partial_sums(partial, place, shape, [&](int number, int in_tile, double sum, double square) {
    const float shift = static_cast<float>(x[place.outer * shape.steps * shape.groups * V + number]);
    const int64_t at = place.channel(number, shape), parameter = place.parameter(number, shape);
    float middle, deviation;
    finish_statistics(sum, square, shift, shape.steps * (V / K), eps, middle, deviation);
    tile[0][in_tile] = middle;
    tile[1][in_tile] = weight ? deviation * weight[parameter] : deviation;
    tile[2][in_tile] = bias ? bias[parameter] : 0.0f;
    if (place.chunk == 0) {
      mean[at] = middle;
      rstd[at] = deviation;
    }
  });
  __syncthreads();
  if (place.first >= place.last) return;
  Norm<K> norm;
  for (int k = 0; k < K; ++k) {
    const int in_tile = (place.group - place.tile_begin) * K + k;
    norm.mean[k] = tile[0][in_tile];
    norm.scale[k] = tile[1][in_tile];
    norm.bias[k] = tile[2][in_tile];
  }
  const Sources<T, V> sources{x, nullptr, residual};
  for_each_step<2>(sources, place, shape, [&](int64_t at, const Numbers<T, V>& numbers) {
    Vector<T, V> result;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float value = (static_cast<float>(numbers.x.values[i]) - norm.mean[i % K]) * norm.scale[i % K] + norm.bias[i % K];
      if (residual) value += static_cast<float>(numbers.residual.values[i]);
      result.values[i] = static_cast<T>(relu && value < 0 ? 0.0f : value);  // NaN stays NaN, as in torch.relu
    }
    reinterpret_cast<Vector<T, V>*>(y)[at] = result;
  });
}

// The norm of a thread's channels from stored statistics.
template <int V, int K>
__device__ Norm<K> stored_norm(
    const float* mean, const float* rstd, const float* weight, const float* bias, const Place<V, K>& place,
    const NormShape& shape) {
  Norm<K> norm{};
  if (place.first >= place.last) return norm;
  for (int k = 0; k < K; ++k) {
    const int number = place.group * K + k;
    const int64_t at = place.channel(number, shape), parameter = place.parameter(number, shape);
    norm.mean[k] = mean[at];
    norm.scale[k] = weight ? rstd[at] * weight[parameter] : rstd[at];
    norm.bias[k] = bias ? bias[parameter] : 0.0f;
  }
  return norm;
}

// The gradient of what stands before the activation, which is computed again; and x - mean.
template <typename T, int V, int K>
__device__ float gradient(
    const Numbers<T, V>& numbers, int i, const Norm<K>& norm, bool relu, bool has_residual, float& centered) {
  centered = static_cast<float>(numbers.x.values[i]) - norm.mean[i % K];
  float value = centered * norm.scale[i % K] + norm.bias[i % K];
  if (has_residual) value += static_cast<float>(numbers.residual.values[i]);
  return relu && value <= 0 ? 0.0f : static_cast<float>(numbers.grad.values[i]);
}

// residual: only where relu is.
template <typename T, int V, int K>
__global__ void __launch_bounds__(NORM_THREADS, 2) norm_gradient_sums_kernel(
    const T* __restrict__ grad, const T* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ rstd,
    const float* __restrict__ weight, const float* __restrict__ bias, const T* __restrict__ residual,
    float* __restrict__ partial, NormShape shape, bool relu) {
  const Place<V, K> place(shape);
  const Norm<K> norm = stored_norm(mean, rstd, weight, bias, place, shape);
  float sum[K] = {}, product[K] = {};
  for_each_step<2>(Sources<T, V>{x, grad, residual}, place, shape, [&](int64_t, const Numbers<T, V>& numbers) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float centered;
      const float slope = gradient(numbers, i, norm, relu, residual != nullptr, centered);
      sum[i % K] += slope;
      product[i % K] += slope * centered;
    }
  });
  store_sums(sum, product, partial, place, shape);
}

// Writes the gradients of x and residual, and sums [N, 2, C]: of the gradient and of its product with the normalized x.
template <typename T, int V, int K>
__global__ void __launch_bounds__(NORM_THREADS, 2) norm_gradient_write_kernel(
    const T* __restrict__ grad, const T* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ rstd,
    const float* __restrict__ weight, const float* __restrict__ bias, const T* __restrict__ residual,
    const float* __restrict__ partial, T* __restrict__ grad_x, T* __restrict__ grad_residual, float* __restrict__ sums,
    NormShape shape, bool relu) {
  __shared__ float tile[2][K * NORM_THREADS];  // constant and slope of the block's channels
  const Place<V, K> place(shape);
  add_partial_sums(partial, place, shape, [&](int number, int in_tile, double sum, double product) {
    const int64_t at = place.channel(number, shape), parameter = place.parameter(number, shape);
    const float deviation = rstd[at], scale = weight ? deviation * weight[parameter] : deviation;
    const float total = static_cast<float>(sum), scaled = static_cast<float>(product * deviation);
    finish_gradient(scale, deviation, total, scaled, shape.steps * (V / K), tile[0][in_tile], tile[1][in_tile]);
    if (place.chunk == 0) {
      const int64_t sample = at / shape.channels, channel = at % shape.channels;
      sums[sample * 2 * shape.channels + channel] = total;
      sums[(sample * 2 + 1) * shape.channels + channel] = scaled;
    }
  });
  __syncthreads();
  if (place.first >= place.last) return;
  const Norm<K> norm = stored_norm(mean, rstd, weight, bias, place, shape);
  float constant[K], slope[K];
  for (int k = 0; k < K; ++k) {
    constant[k] = tile[0][(place.group - place.tile_begin) * K + k];
    slope[k] = tile[1][(place.group - place.tile_begin) * K + k];
  }
  for_each_step<2>(Sources<T, V>{x, grad, residual}, place, shape, [&](int64_t at, const Numbers<T, V>& numbers) {
    Vector<T, V> result, passed_on;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float centered;
      const float before = gradient(numbers, i, norm, relu, residual != nullptr, centered);
      result.values[i] = static_cast<T>(norm.scale[i % K] * before - constant[i % K] - centered * slope[i % K]);
      passed_on.values[i] = static_cast<T>(before);
    }
    reinterpret_cast<Vector<T, V>*>(grad_x)[at] = result;
    if (residual) reinterpret_cast<Vector<T, V>*>(grad_residual)[at] = passed_on;
  });
}

}  // namespace atelier
