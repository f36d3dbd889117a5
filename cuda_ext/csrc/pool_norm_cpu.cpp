// pool_norm_act on a CPU: a pass that pools and adds up and a pass that writes, forward and backward.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "pool_norm_lanes.h"

namespace atelier {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
constexpr int64_t PIXELS_A_CHUNK = 256;  // about: pooled ones, whose sums are floats

// Calls body(chunk, first line, last line) for all chunks of the pooled lines of all images, on all threads.
struct Chunks {
  int64_t lines, length, num;

  explicit Chunks(const PoolShape& shape)
      : lines(shape.samples * shape.rows),
        length(std::max<int64_t>(1, PIXELS_A_CHUNK / std::max(1, shape.columns))),
        num((lines + length - 1) / length) {}

  template <typename Body>
  void for_each(Body body) const {
    torch::stable::parallel_for(0, num, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        body(chunk, chunk * length, std::min(lines, (chunk + 1) * length));
      }
    });
  }
};

// Two sums of each channel, from the partial ones of all chunks in their order.
std::vector<double> totals(const std::vector<float>& partial, int64_t chunks, int channels) {
  std::vector<double> result(2 * channels, 0.0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const float* from = &partial[chunk * 2 * channels];
    for (int i = 0; i < 2 * channels; ++i) result[i] += static_cast<double>(from[i]);
  }
  return result;
}

template <typename T>
T* pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

const float* pointer(const MaybeTensor& tensor) {
  return tensor ? static_cast<const float*>(tensor->data_ptr()) : nullptr;
}

Tensor images(const Tensor& like, int64_t channels, int64_t rows, int64_t columns) {
  return torch::stable::empty(
      {like.size(0), channels, rows, columns}, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
      MemoryFormat::ChannelsLast);
}

Tensor floats(const Tensor& like, int64_t rows, int64_t channels) {
  return torch::stable::empty({rows, channels}, ScalarType::Float, std::nullopt, like.device());
}

Tensor bytes(const Tensor& like, int64_t num) {
  return torch::stable::empty({num}, ScalarType::Byte, std::nullopt, like.device());
}

// Calls body(Type<T>, POOL), the latter an integral constant.
template <typename Body>
void dispatch(const Tensor& x, bool pool, Body body) {
  dispatch_floating(x.scalar_type(), [&](auto type) {
    pool ? body(type, std::true_type{}) : body(type, std::false_type{});
  });
}

// Writes the statistics [3, C] of the first pooled pixels as shift, and of the sums of differences from them.
void finish(
    const std::vector<double>& sums, const std::vector<float>& shift, int64_t pixels, double eps, float* statistics) {
  const size_t channels = shift.size();
  for (size_t c = 0; c < channels; ++c) {
    finish_pool_statistics(
        sums[c], sums[channels + c], shift[c], pixels, eps, statistics[c], statistics[channels + c],
        statistics[2 * channels + c]);
  }
}

void known(const float* mean, const float* variance, int channels, double eps, float* statistics) {
  for (int c = 0; c < channels; ++c) {
    statistics[c] = mean[c];
    statistics[channels + c] = static_cast<float>(1.0 / std::sqrt(variance[c] + eps));
    statistics[2 * channels + c] = variance[c];
  }
}

// x: channels_last. Returns y; the pooled x and the codes of its maxima, both [0] where they are not pooled, or not
// kept; and statistics [3, C]: mean, 1 / deviation, unbiased variance.
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& x, MaybeTensor weight, MaybeTensor bias, MaybeTensor running_mean, MaybeTensor running_var,
    bool training, double eps, bool gelu, bool pool, bool keep) {
  const PoolShape shape(x.size(0), x.size(1), x.size(2), x.size(3), pool, gelu);
  const int channels = shape.channels;
  Tensor y = images(x, channels, shape.rows, shape.columns), statistics = floats(x, 3, channels);
  const auto none = [&] { return std::make_tuple(torch::stable::new_empty(x, {0}), bytes(x, 0)); };
  auto [pooled, codes] =
      pool ? std::make_tuple(images(x, channels, shape.rows, shape.columns), bytes(x, shape.pixels() * shape.bytes))
           : none();
  if (!training) known(pointer(running_mean), pointer(running_var), channels, eps, pointer<float>(statistics));
  const Chunks chunks(shape);
  dispatch(x, pool, [&](auto type, auto pools) {
    using T = typename decltype(type)::type;
    constexpr bool POOL = decltype(pools)::value;
    PoolPointers<T> p{pointer<T>(x), pointer<T>(pooled), pointer<T>(y), nullptr, pointer<uint8_t>(codes), nullptr};
    if (shape.pixels() == 0) return;
    if (training || POOL) {
      std::vector<float> partial(chunks.num * 2 * channels), shift(channels);
      first_pixel(p.x, shape, shift.data());
      chunks.for_each([&](int64_t chunk, int64_t first, int64_t last) {
        add_up_lines<T, POOL>(p, shape, shift.data(), first, last, &partial[chunk * 2 * channels]);
      });
      if (training) {
        finish(totals(partial, chunks.num, channels), shift, shape.pixels(), eps, pointer<float>(statistics));
      }
    }
    if (POOL) p.x = p.pooled;
    const PoolNumbers numbers(shape, pointer<float>(statistics), pointer(weight), pointer(bias));
    chunks.for_each([&](int64_t, int64_t first, int64_t last) { write_lines(p, shape, numbers, first, last); });
  });
  if (!training && !keep) std::tie(pooled, codes) = none();
  return {y, pooled, codes, statistics};
}

// pooled: x itself where it is not pooled. Returns the gradient of x [N, C, height, width], and sums [2, C]: of the
// gradient before the activation, and of its product with the normalized x.
std::tuple<Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& pooled, const Tensor& codes, const Tensor& statistics, MaybeTensor weight,
    MaybeTensor bias, int64_t height, int64_t width, bool training, bool gelu, bool pool) {
  const PoolShape shape(pooled.size(0), pooled.size(1), height, width, pool, gelu);
  const int channels = shape.channels;
  Tensor grad_x = images(pooled, channels, height, width), sums = floats(pooled, 2, channels);
  Tensor before = floats(pooled, shape.pixels(), channels);
  const Chunks chunks(shape);
  dispatch(pooled, pool, [&](auto type, auto pools) {
    using T = typename decltype(type)::type;
    constexpr bool POOL = decltype(pools)::value;
    PoolPointers<T> p{pointer<T>(pooled),    nullptr, pointer<T>(grad_x), pointer<T>(grad), pointer<uint8_t>(codes),
                      pointer<float>(before)};
    PoolNumbers numbers(shape, pointer<float>(statistics), pointer(weight), pointer(bias));
    numbers.training = training;
    std::vector<float> partial(chunks.num * 2 * channels);
    chunks.for_each([&](int64_t chunk, int64_t first, int64_t last) {
      add_up_gradient_lines<T>(p, shape, numbers, first, last, &partial[chunk * 2 * channels]);
    });
    const std::vector<double> total = totals(partial, chunks.num, channels);
    for (int c = 0; c < channels; ++c) {
      const float rstd = pointer<float>(statistics)[channels + c];
      const float sum = static_cast<float>(total[c]), product = static_cast<float>(total[channels + c] * rstd);
      pointer<float>(sums)[c] = sum;
      pointer<float>(sums)[channels + c] = product;
      if (!training) continue;
      finish_gradient(
          numbers.scale[c], rstd, sum, product, shape.pixels(), numbers.constant[c], numbers.slope[c]);
    }
    chunks.for_each([&](int64_t, int64_t first, int64_t last) {
      write_gradient_lines<T, POOL>(p, shape, numbers, first, last);
    });
  });
  return {grad_x, sums};
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CPU, m) {
  m.impl("pool_norm_act", TORCH_BOX(&atelier::forward));
  m.impl("pool_norm_act_backward", TORCH_BOX(&atelier::backward));
}
