// pool_norm_act on a GPU: three launches forward, three backward; forward without training two.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "launch.cuh"
#include "pool_norm_gradient.cuh"

namespace atelier {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
constexpr int64_t POOL_BLOCKS = 528;  // four for each multiprocessor of an H100 or H200
constexpr int NARROW = 4;             // channels of a group that is moved one by one

Tensor images(const Tensor& like, int64_t channels, int64_t rows, int64_t columns) {
  return torch::stable::empty(
      {like.size(0), channels, rows, columns}, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
      MemoryFormat::ChannelsLast);
}

Tensor floats(const Tensor& like, std::vector<int64_t> size) {
  return torch::stable::empty(size, ScalarType::Float, std::nullopt, like.device());
}

unsigned finish_blocks(const PoolShape& shape) {
  return static_cast<unsigned>(divided_up(shape.channels, FINISH_CHANNELS));
}

// Calls body(Type<T>, V, WIDE, POOL), all but the first as integral constants.
template <typename Body>
void dispatch(const Tensor& x, bool all_aligned, bool pool, Body body) {
  const auto with = [&](auto type, auto width, auto wide) {
    pool ? body(type, width, wide, std::true_type{}) : body(type, width, wide, std::false_type{});
  };
  dispatch_floating(x.scalar_type(), [&](auto type) {
    constexpr int V = WIDEST<typename decltype(type)::type>;
    if (all_aligned && x.size(1) % V == 0) {
      with(type, std::integral_constant<int, V>{}, std::true_type{});
    } else {
      with(type, std::integral_constant<int, NARROW>{}, std::false_type{});
    }
  });
}

// x: channels_last. Returns y; the pooled x and the codes of its maxima, both [0] where they are not pooled, or not
// kept; and statistics [3, C]: mean, 1 / deviation, unbiased variance.
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& x, MaybeTensor weight, MaybeTensor bias, MaybeTensor running_mean, MaybeTensor running_var,
    bool training, double eps, bool gelu, bool pool, bool keep) {
  torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const PoolShape shape(x.size(0), x.size(1), x.size(2), x.size(3), pool, gelu);
  const bool stores = pool && (training || keep);
  Tensor y = images(x, shape.channels, shape.rows, shape.columns), statistics = floats(x, {3, shape.channels});
  Tensor pooled = stores ? images(x, shape.channels, shape.rows, shape.columns) : torch::stable::new_empty(x, {0});
  Tensor codes = torch::stable::empty(
      {stores ? shape.pixels() * shape.bytes : 0}, ScalarType::Byte, std::nullopt, x.device());
  const cudaStream_t stream = current_stream(x);
  if (!training) {
    pool_known_statistics_kernel<<<divided_up(shape.channels, POOL_THREADS), POOL_THREADS, 0, stream>>>(
        pointer<float>(running_mean), pointer<float>(running_var), pointer<float>(statistics), shape.channels, eps);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  if (y.numel() == 0) return {y, pooled, codes, statistics};
  dispatch(x, aligned(x.data_ptr()), pool, [&](auto type, auto width, auto wide, auto pools) {
    using T = typename decltype(type)::type;
    constexpr int V = width.value;
    constexpr bool WIDE = wide.value, POOL = pools.value;
    const PoolWork work(shape, V, POOL_THREADS, POOL_BLOCKS);
    T* kept = stores ? pointer<T>(pooled) : nullptr;
    if (!training) {
      pool_write_kernel<T, V, WIDE, POOL><<<work.num_blocks(), POOL_THREADS, 0, stream>>>(
          pointer<T>(x), pointer<float>(statistics), pointer<float>(weight), pointer<float>(bias), kept,
          pointer<uint8_t>(codes), pointer<T>(y), work);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      return;
    }
    const T* from = POOL ? kept : pointer<T>(x);
    Tensor partial = floats(x, {work.chunks, 2, work.groups * V});
    pool_sums_kernel<T, V, WIDE, POOL><<<work.num_blocks(), POOL_THREADS, 0, stream>>>(
        pointer<T>(x), kept, pointer<uint8_t>(codes), pointer<float>(partial), work);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    pool_statistics_kernel<<<finish_blocks(shape), POOL_THREADS, 0, stream>>>(
        pointer<float>(partial), from, pointer<float>(statistics), work, work.groups * V, eps);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    pool_write_kernel<T, V, WIDE, false><<<work.num_blocks(), POOL_THREADS, 0, stream>>>(
        from, pointer<float>(statistics), pointer<float>(weight), pointer<float>(bias), static_cast<T*>(nullptr),
        static_cast<uint8_t*>(nullptr), pointer<T>(y), work);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {y, pooled, codes, statistics};
}

// pooled: x itself where it is not pooled. Returns the gradient of x [N, C, height, width], and sums [2, C]: of the
// gradient before the activation, and of its product with the normalized x.
std::tuple<Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& pooled, const Tensor& codes, const Tensor& statistics, MaybeTensor weight,
    MaybeTensor bias, int64_t height, int64_t width, bool training, bool gelu, bool pool) {
  torch::stable::accelerator::DeviceGuard guard(pooled.get_device_index());
  const PoolShape shape(pooled.size(0), pooled.size(1), height, width, pool, gelu);
  Tensor grad_x = images(pooled, shape.channels, height, width), sums = floats(pooled, {2, shape.channels});
  if (grad_x.numel() == 0) return {grad_x, torch::stable::fill_(sums, 0.0)};
  const cudaStream_t stream = current_stream(pooled);
  const bool all_aligned = aligned(pooled.data_ptr()) && aligned(grad.data_ptr());
  // Codes of wide and narrow groups lie alike: two bits a channel, four channels a byte.
  dispatch(pooled, all_aligned, pool, [&](auto type, auto lanes, auto wide, auto pools) {
    using T = typename decltype(type)::type;
    constexpr int V = lanes.value;
    constexpr bool WIDE = wide.value, POOL = pools.value;
    const PoolWork work(shape, V, POOL_THREADS, POOL_BLOCKS);
    Tensor partial = floats(pooled, {work.chunks, 2, work.groups * V});
    pool_gradient_sums_kernel<T, V, WIDE><<<work.num_blocks(), POOL_THREADS, 0, stream>>>(
        pointer<T>(grad), pointer<T>(pooled), pointer<float>(statistics), pointer<float>(weight), pointer<float>(bias),
        pointer<float>(partial), work);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    pool_gradient_finish_kernel<<<finish_blocks(shape), POOL_THREADS, 0, stream>>>(
        pointer<float>(partial), pointer<float>(statistics), pointer<float>(sums), work.chunks, work.groups * V,
        shape.channels);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    pool_gradient_write_kernel<T, V, WIDE, POOL><<<work.num_blocks(), POOL_THREADS, 0, stream>>>(
        pointer<T>(grad), pointer<T>(pooled), pointer<uint8_t>(codes), pointer<float>(statistics),
        pointer<float>(weight), pointer<float>(bias), pointer<float>(sums), pointer<T>(grad_x), work, training);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {grad_x, sums};
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CUDA, m) {
  m.impl("pool_norm_act", TORCH_BOX(&atelier::forward));
  m.impl("pool_norm_act_backward", TORCH_BOX(&atelier::backward));
}
