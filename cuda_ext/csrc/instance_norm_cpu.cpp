// instance_norm_act on a CPU: a pass that adds up and a pass that writes, forward and backward.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "instance_norm.h"
#include "lanes.h"
#include "strips.h"

namespace atelier {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

template <typename T>
struct Pointers {
  const T *x, *grad, *residual;
  T *out, *grad_residual;
  bool relu;
};

// What each lane of a strip is normalized with: (x - mean) * scale + bias.
struct Norm {
  Lanes mean, scale, bias;
};

template <bool FULL, typename T>
void add_up_rows(const T* x, const Strip& strip, const Lanes& shift, Lanes& sum, Lanes& square) {
  Lanes total, squares;
  for (int64_t row = 0; row < strip.rows; ++row) {
    const Lanes difference = load<FULL>(x + strip.begin + row * strip.stride, strip.lanes) - shift;
    total = total + difference;
    squares = squares + difference * difference;
  }
  sum = total;
  square = squares;
}

template <bool FULL, typename T>
void write_rows(const Pointers<T>& p, const Strip& strip, const Norm& norm) {
  for (int64_t row = 0; row < strip.rows; ++row) {
    const int64_t at = strip.begin + row * strip.stride;
    Lanes value = (load<FULL>(p.x + at, strip.lanes) - norm.mean) * norm.scale + norm.bias;
    if (p.residual) value = value + load<FULL>(p.residual + at, strip.lanes);
    store<FULL>(p.relu ? positive_part(value) : value, p.out + at, strip.lanes);
  }
}

// The gradient before the activation, which is computed again; and x - mean.
template <bool FULL, typename T>
Lanes gradient(const Pointers<T>& p, int64_t at, int lanes, const Norm& norm, Lanes& centered) {
  centered = load<FULL>(p.x + at, lanes) - norm.mean;
  const Lanes grad = load<FULL>(p.grad + at, lanes);
  if (!p.relu) return grad;
  Lanes value = centered * norm.scale + norm.bias;
  if (p.residual) value = value + load<FULL>(p.residual + at, lanes);
  return masked(grad, value);
}

template <bool FULL, typename T>
void add_up_gradient_rows(const Pointers<T>& p, const Strip& strip, const Norm& norm, Lanes& sum, Lanes& product) {
  Lanes total, products, centered;
  for (int64_t row = 0; row < strip.rows; ++row) {
    const Lanes grad = gradient<FULL>(p, strip.begin + row * strip.stride, strip.lanes, norm, centered);
    total = total + grad;
    products = products + grad * centered;
  }
  sum = total;
  product = products;
}

template <bool FULL, typename T>
void write_gradient_rows(
    const Pointers<T>& p, const Strip& strip, const Norm& norm, const Lanes& constant, const Lanes& slope) {
  Lanes centered;
  for (int64_t row = 0; row < strip.rows; ++row) {
    const int64_t at = strip.begin + row * strip.stride;
    const Lanes grad = gradient<FULL>(p, at, strip.lanes, norm, centered);
    store<FULL>(norm.scale * grad - constant - centered * slope, p.out + at, strip.lanes);
    if (p.grad_residual) store<FULL>(grad, p.grad_residual + at, strip.lanes);
  }
}

template <typename T>
ATELIER_EVERY_PROCESSOR void add_up(const T* x, const Strip& strip, const Lanes& shift, Lanes& sum, Lanes& square) {
  strip.lanes == LANES ? add_up_rows<true>(x, strip, shift, sum, square)
                       : add_up_rows<false>(x, strip, shift, sum, square);
}

template <typename T>
ATELIER_EVERY_PROCESSOR void write(const Pointers<T>& p, const Strip& strip, const Norm& norm) {
  strip.lanes == LANES ? write_rows<true>(p, strip, norm) : write_rows<false>(p, strip, norm);
}

template <typename T>
ATELIER_EVERY_PROCESSOR void add_up_gradient(
    const Pointers<T>& p, const Strip& strip, const Norm& norm, Lanes& sum, Lanes& product) {
  strip.lanes == LANES ? add_up_gradient_rows<true>(p, strip, norm, sum, product)
                       : add_up_gradient_rows<false>(p, strip, norm, sum, product);
}

template <typename T>
ATELIER_EVERY_PROCESSOR void write_gradient(
    const Pointers<T>& p, const Strip& strip, const Norm& norm, const Lanes& constant, const Lanes& slope) {
  strip.lanes == LANES ? write_gradient_rows<true>(p, strip, norm, constant, slope)
                       : write_gradient_rows<false>(p, strip, norm, constant, slope);
}

template <typename T>
T* pointer(const MaybeTensor& tensor) {
  return tensor ? static_cast<T*>(tensor->data_ptr()) : nullptr;
}

template <typename T>
T* pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

Tensor dense_like(const Tensor& x) {
  const auto format = x.is_contiguous() ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
  return torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device(), std::nullopt, format);
}

Tensor empty_floats(const Tensor& x, std::vector<int64_t> size) {
  return torch::stable::empty(size, ScalarType::Float, std::nullopt, x.device());
}

// The numbers of every channel: from its mean and deviation, and weight and bias [C] or [N, C], or none.
struct Norms {
  PerChannel mean, scale, bias;

  Norms(const Shape& shape, const float* means, const float* rstd, const MaybeTensor& weight, const MaybeTensor& biases)
      : mean(shape), scale(shape), bias(shape) {
    const auto *factors = pointer<float>(weight), *offsets = pointer<float>(biases);
    shape.for_each_channel([&](int64_t, int64_t channel, int64_t at) {
      const int64_t parameter = weight && weight->dim() == 2 ? at : channel;
      mean.values[at] = means[at];
      scale.values[at] = factors ? rstd[at] * factors[parameter] : rstd[at];
      bias.values[at] = offsets ? offsets[parameter] : 0.0f;
    });
  }

  Norm of(const Strip& strip) const {
    return {mean.of(strip), scale.of(strip), bias.of(strip)};
  }
};

template <typename T>
void statistics(const T* x, const Shape& shape, double eps, float* mean, float* rstd) {
  PerChannel shift(shape);  // the first number of each channel: sums of differences from it lose less
  shape.for_each_channel([&](int64_t sample, int64_t channel, int64_t at) {
    const int64_t first = shape.channels_last ? sample * shape.pixels * shape.channels + channel : at * shape.pixels;
    shift.values[at] = static_cast<float>(x[first]);
  });
  Sums sums(shape);
  shape.for_each_strip([&](const Strip& strip) {
    Lanes sum, square;
    add_up(x, strip, shift.of(strip), sum, square);
    sums.add(strip, sum, square);
  });
  shape.for_each_channel([&](int64_t sample, int64_t channel, int64_t at) {
    const double sum = sums.total(sample, channel, 0), square = sums.total(sample, channel, 1);
    finish_statistics(sum, square, shift.values[at], shape.pixels, eps, mean[at], rstd[at]);
  });
}

std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& x, MaybeTensor weight, MaybeTensor bias, MaybeTensor residual, bool relu, double eps) {
  const Shape shape(x);
  const std::vector<int64_t> size{shape.samples, shape.channels};
  Tensor y = dense_like(x), mean = empty_floats(x, size), rstd = empty_floats(x, size);
  dispatch_floating(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    const Pointers<T> p{pointer<T>(x), nullptr, pointer<T>(residual), pointer<T>(y), nullptr, relu};
    statistics(p.x, shape, eps, pointer<float>(mean), pointer<float>(rstd));
    const Norms norms(shape, pointer<float>(mean), pointer<float>(rstd), weight, bias);
    shape.for_each_strip([&](const Strip& strip) { write(p, strip, norms.of(strip)); });
  });
  return {y, mean, rstd};
}

// Returns the gradients of x and of the residual ([0] where there is none, or it is grad itself), and sums [N, 2, C]:
// of the gradient before the activation, and of its product with the normalized x.
std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& rstd, MaybeTensor weight, MaybeTensor bias,
    MaybeTensor residual, bool relu) {
  const Shape shape(x);
  if (!relu) residual = std::nullopt;
  Tensor grad_x = dense_like(x), sums = empty_floats(x, {shape.samples, 2, shape.channels});
  Tensor grad_residual = residual ? dense_like(x) : torch::stable::new_empty(x, {0});
  dispatch_floating(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    const Pointers<T> p{pointer<T>(x),      pointer<T>(grad), pointer<T>(residual),
                        pointer<T>(grad_x), residual ? pointer<T>(grad_residual) : nullptr, relu};
    const Norms norms(shape, pointer<float>(mean), pointer<float>(rstd), weight, bias);
    Sums partial(shape);
    shape.for_each_strip([&](const Strip& strip) {
      Lanes sum, product;
      add_up_gradient(p, strip, norms.of(strip), sum, product);
      partial.add(strip, sum, product);
    });
    PerChannel constant(shape), slope(shape);
    shape.for_each_channel([&](int64_t sample, int64_t channel, int64_t at) {
      const float deviation = pointer<float>(rstd)[at];
      const float sum = static_cast<float>(partial.total(sample, channel, 0));
      const float product = static_cast<float>(partial.total(sample, channel, 1) * deviation);
      float* total = pointer<float>(sums) + sample * 2 * shape.channels + channel;
      total[0] = sum;
      total[shape.channels] = product;
      finish_gradient(
          norms.scale.values[at], deviation, sum, product, shape.pixels, constant.values[at], slope.values[at]);
    });
    shape.for_each_strip([&](const Strip& strip) {
      write_gradient(p, strip, norms.of(strip), constant.of(strip), slope.of(strip));
    });
  });
  return {grad_x, grad_residual, sums};
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CPU, m) {
  m.impl("instance_norm_act", TORCH_BOX(&atelier::forward));
  m.impl("instance_norm_act_backward", TORCH_BOX(&atelier::backward));
}
