// The kernels of pool_norm_act that write its result, and those of its gradient.
#pragma once

#include <cstdint>
#include <type_traits>

#include "pool_norm.cuh"

namespace atelier {

// What a thread's channels are normalized with: (x - mean) * scale + bias.
template <int V>
struct PoolAffine {
  float mean[V] = {}, rstd[V] = {}, scale[V] = {}, bias[V] = {};

  // statistics: [3, channels] as pool_statistics_kernel writes them.
  __device__ PoolAffine(const float* statistics, const float* weight, const float* biases, int group, int channels) {
    for (int k = 0; k < V; ++k) {
      const int channel = group * V + k;
      if (channel >= channels) continue;
      mean[k] = statistics[channel];
      rstd[k] = statistics[channels + channel];
      scale[k] = weight ? rstd[k] * weight[channel] : rstd[k];
      bias[k] = biases ? biases[channel] : 0.0f;
    }
  }
};

// Writes y. POOL: pools x on the way, and stores the pooled x and its codes unless those are null.
template <typename T, int V, bool WIDE, bool POOL>
__global__ void __launch_bounds__(POOL_THREADS, 2) pool_write_kernel(
    const T* __restrict__ x, const float* __restrict__ statistics, const float* __restrict__ weight,
    const float* __restrict__ bias, T* __restrict__ pooled, uint8_t* __restrict__ codes, T* __restrict__ y,
    PoolWork work) {
  const PoolPlace<T, V, WIDE> place(work);
  if (place.first >= place.last) return;
  const PoolAffine<V> affine(statistics, weight, bias, place.group, work.shape.channels);
  place.template for_each_pixel<2>(
      [&](uint32_t pixel) { return pooled_at<POOL>(x, pixel, work.shape, place.group, place.memory); },
      [&](uint32_t pixel, const Pooled<T, V>& found) {
        Vector<T, V> result;
        const auto activate = [&](auto gelu) {
#pragma unroll
          for (int k = 0; k < V; ++k) {
            const float centered = static_cast<float>(found.values.values[k]) - affine.mean[k];
            const float value = activated<decltype(gelu)::value>(centered * affine.scale[k] + affine.bias[k]);
            result.values[k] = static_cast<T>(value);
          }
        };
        work.shape.gelu ? activate(std::true_type{}) : activate(std::false_type{});
        place.memory.store(result, y, pixel, place.group);
        if (!POOL || !pooled) return;
        using Code = typename Groups<T, V, WIDE>::Code;
        place.memory.store(found.values, pooled, pixel, place.group);
        reinterpret_cast<Code*>(codes)[static_cast<int64_t>(pixel) * work.groups + place.group] =
            static_cast<Code>(found.codes);
      });
}

template <typename T, int V>
struct PoolRead {
  Vector<T, V> pooled, grad;
};

// Calls body(k, gradient of what stands before the activation, which is computed again, x - mean) for each channel.
template <typename T, int V, typename Body>
__device__ void for_each_gradient(const PoolRead<T, V>& read, const PoolAffine<V>& affine, bool gelu, Body body) {
  const auto all = [&](auto is_gelu) {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float centered = static_cast<float>(read.pooled.values[k]) - affine.mean[k];
      const float value = centered * affine.scale[k] + affine.bias[k], grad = static_cast<float>(read.grad.values[k]);
      body(k, activation_gradient<decltype(is_gelu)::value>(grad, value), centered);
    }
  };
  gelu ? all(std::true_type{}) : all(std::false_type{});
}

template <typename T, int V, bool WIDE>
__global__ void __launch_bounds__(POOL_THREADS, 2) pool_gradient_sums_kernel(
    const T* __restrict__ grad, const T* __restrict__ pooled, const float* __restrict__ statistics,
    const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ partial, PoolWork work) {
  const PoolPlace<T, V, WIDE> place(work);
  const PoolAffine<V> affine(statistics, weight, bias, place.group, work.shape.channels);
  float sum[V] = {}, product[V] = {};
  place.template for_each_pixel<2>(
      [&](uint32_t pixel) {
        return PoolRead<T, V>{
            place.memory.load(pooled, pixel, place.group), place.memory.load(grad, pixel, place.group)};
      },
      [&](uint32_t, const PoolRead<T, V>& read) {
        for_each_gradient(read, affine, work.shape.gelu, [&](int k, float before, float centered) {
          sum[k] += before;
          product[k] += before * centered;
        });
      });
  store_pool_sums(sum, product, partial, place, work);
}

// Writes sums [2, C]: of the gradient before the activation, and of its product with the normalized x.
__global__ void pool_gradient_finish_kernel(
    const float* partial, const float* statistics, float* sums, int chunks, int padded, int channels) {
  finish_pool_sums(partial, chunks, padded, channels, [&](int channel, double sum, double product) {
    sums[channel] = static_cast<float>(sum);
    sums[channels + channel] = static_cast<float>(product * statistics[channels + channel]);
  });
}

// Writes the gradient of x. training: the statistics are those of x, and so depend on it.
template <typename T, int V, bool WIDE, bool POOL>
__global__ void __launch_bounds__(POOL_THREADS, 2) pool_gradient_write_kernel(
    const T* __restrict__ grad, const T* __restrict__ pooled, const uint8_t* __restrict__ codes,
    const float* __restrict__ statistics, const float* __restrict__ weight, const float* __restrict__ bias,
    const float* __restrict__ sums, T* __restrict__ grad_x, PoolWork work, bool training) {
  using Code = typename Groups<T, V, WIDE>::Code;
  const PoolPlace<T, V, WIDE> place(work);
  if (place.first >= place.last) return;
  const PoolShape& shape = work.shape;
  const PoolAffine<V> affine(statistics, weight, bias, place.group, shape.channels);
  float constant[V] = {}, slope[V] = {};
  for (int k = 0; training && k < V; ++k) {
    const int channel = place.group * V + k;
    if (channel >= shape.channels) continue;
    finish_gradient(
        affine.scale[k], affine.rstd[k], sums[channel], sums[shape.channels + channel], work.pixels, constant[k],
        slope[k]);
  }
  place.template for_each_pixel<2>(
      [&](uint32_t pixel) {
        return PoolRead<T, V>{
            place.memory.load(pooled, pixel, place.group), place.memory.load(grad, pixel, place.group)};
      },
      [&](uint32_t pixel, const PoolRead<T, V>& read) {
        Vector<T, V> result;
        for_each_gradient(read, affine, shape.gelu, [&](int k, float before, float centered) {
          const float through = training ? constant[k] + centered * slope[k] : 0.0f;
          result.values[k] = static_cast<T>(affine.scale[k] * before - through);
        });
        if (!POOL) {
          place.memory.store(result, grad_x, pixel, place.group);
          return;
        }
        const uint32_t code =
            reinterpret_cast<const Code*>(codes)[static_cast<int64_t>(pixel) * work.groups + place.group];
        uint32_t row, column;
        const int64_t at = window_of(pixel, shape, row, column);
        // The last window of an odd size also writes the zeros of the pixels behind it, which no window holds.
        const int high = 2 + (row + 1 == static_cast<uint32_t>(shape.rows) ? shape.height % 2 : 0);
        const int wide = 2 + (column + 1 == static_cast<uint32_t>(shape.columns) ? shape.width % 2 : 0);
        for (int i = 0; i < high; ++i) {
          for (int j = 0; j < wide; ++j) {
            Vector<T, V> part;
#pragma unroll
            for (int k = 0; k < V; ++k) {
              const bool here = i < 2 && j < 2 && (code >> 2 * k & 3) == static_cast<uint32_t>(2 * i + j);
              part.values[k] = here ? result.values[k] : static_cast<T>(0.0f);
            }
            place.memory.store(part, grad_x, at + static_cast<int64_t>(i) * shape.width + j, place.group);
          }
        }
      });
}

}  // namespace atelier
