// The bodies of the CUDA kernels of pool_norm_act behind a plain function, run by emulation.h.
#include "emulation.h"

#include <torch/headeronly/core/ScalarType.h>

#include <vector>

#include "dispatch.h"
#include "pool_norm_gradient.cuh"

using namespace atelier;

namespace {

template <typename T, int V, bool WIDE, bool POOL>
void run(
    const T* x, const float* weight, const float* bias, const float* running_mean, const float* running_var,
    const T* grad, T* y, T* pooled, uint8_t* codes, float* statistics, T* grad_x, float* sums, const PoolShape& shape,
    bool training, double eps, unsigned threads, int64_t blocks) {
  const PoolWork work(shape, V, static_cast<int>(threads), blocks);
  const unsigned num = work.num_blocks(), finish = (shape.channels + FINISH_CHANNELS - 1) / FINISH_CHANNELS;
  const int padded = work.groups * V;
  std::vector<float> partial(static_cast<size_t>(work.chunks) * 2 * padded);
  const T* from = POOL ? pooled : x;
  if (training) {
    launch(pool_sums_kernel<T, V, WIDE, POOL>, num, 1, threads, x, pooled, codes, partial.data(), work);
    launch(
        pool_statistics_kernel<T>, finish, 1, 3 * FINISH_CHANNELS, partial.data(), from, statistics, work, padded, eps);
    launch(
        pool_write_kernel<T, V, WIDE, false>, num, 1, threads, from, statistics, weight, bias, nullptr, nullptr,
        y, work);
  } else {
    launch(
        pool_known_statistics_kernel, 2, 1, (shape.channels + 1) / 2, running_mean, running_var, statistics,
        shape.channels, eps);
    launch(
        pool_write_kernel<T, V, WIDE, POOL>, num, 1, threads, x, statistics, weight, bias, pooled, codes, y,
        work);
  }
  launch(
      pool_gradient_sums_kernel<T, V, WIDE>, num, 1, threads, grad, from, statistics, weight, bias,
      partial.data(), work);
  launch(
      pool_gradient_finish_kernel, finish, 1, 3 * FINISH_CHANNELS, partial.data(), statistics, sums, work.chunks,
      padded, shape.channels);
  launch(
      pool_gradient_write_kernel<T, V, WIDE, POOL>, num, 1, threads, grad, from, codes, statistics, weight, bias,
      sums, grad_x, work, training);
}

}  // namespace

// wide: groups of as many channels as one instruction moves, else of four. float16 differs from bfloat16 in nothing but
// its rounding, and is left out: compiling takes longer than running.
extern "C" void emulated_pool(
    int dtype, bool wide, bool pool, bool gelu, bool training, const void* x, const float* weight, const float* bias,
    const float* running_mean, const float* running_var, const void* grad, void* y, void* pooled, uint8_t* codes,
    float* statistics, void* grad_x, float* sums, int64_t samples, int64_t channels, int64_t height, int64_t width,
    double eps, unsigned threads, int64_t blocks) {
  const PoolShape shape(samples, channels, height, width, pool, gelu);
  const auto with = [&](auto type, auto lanes, auto is_wide, auto pools) {
    using T = typename decltype(type)::type;
    run<T, lanes.value, is_wide.value, pools.value>(
        static_cast<const T*>(x), weight, bias, running_mean, running_var, static_cast<const T*>(grad),
        static_cast<T*>(y), static_cast<T*>(pooled), codes, statistics, static_cast<T*>(grad_x), sums, shape, training,
        eps, threads, blocks);
  };
  const auto choose = [&](auto type) {
    constexpr int V = WIDEST<typename decltype(type)::type>;
    const std::true_type yes;
    const std::false_type no;
    if (wide) {
      const std::integral_constant<int, V> lanes;
      pool ? with(type, lanes, yes, yes) : with(type, lanes, yes, no);
    } else {
      const std::integral_constant<int, 4> lanes;
      pool ? with(type, lanes, no, yes) : with(type, lanes, no, no);
    }
  };
  if (dtype == static_cast<int>(torch::headeronly::ScalarType::Float)) {
    choose(Type<float>{});
  } else {
    choose(Type<torch::headeronly::BFloat16>{});
  }
}
