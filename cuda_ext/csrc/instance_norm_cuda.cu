// instance_norm_act on a GPU: two launches forward, two backward.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "instance_norm.cuh"
#include "launch.cuh"

namespace atelier {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
constexpr int64_t NORM_BLOCKS = 1024;

Tensor dense_like(const Tensor& x) {
  const auto format = x.is_contiguous() ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
  return torch::stable::empty(x.sizes(), x.scalar_type(), std::nullopt, x.device(), std::nullopt, format);
}

Tensor empty_floats(const Tensor& x, std::vector<int64_t> size) {
  return torch::stable::empty(size, ScalarType::Float, std::nullopt, x.device());
}

NormShape divide(const Tensor& x, const MaybeTensor& weight, int V) {
  const bool per_sample = weight && weight->dim() == 2;
  return NormShape(
      x.size(0), x.size(1), x.size(2) * x.size(3), !x.is_contiguous(), per_sample, V, NORM_THREADS, NORM_BLOCKS);
}

unsigned blocks(const NormShape& shape) {
  return static_cast<unsigned>(shape.num_blocks());
}

// Calls body(Type<T>, V, K), the latter as integral constants.
template <typename Body>
void dispatch(const Tensor& x, bool all_aligned, Body body) {
  dispatch_floating(x.scalar_type(), [&](auto type) {
    constexpr int V = WIDEST<typename decltype(type)::type>;
    using Wide = std::integral_constant<int, V>;
    using One = std::integral_constant<int, 1>;
    const int64_t together = x.is_contiguous() ? x.size(2) * x.size(3) : x.size(1);
    if (!all_aligned || together % V != 0) {
      body(type, One{}, One{});
    } else if (x.is_contiguous()) {
      body(type, Wide{}, One{});
    } else {
      body(type, Wide{}, Wide{});
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& x, MaybeTensor weight, MaybeTensor bias, MaybeTensor residual, bool relu, double eps) {
  torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const std::vector<int64_t> size{x.size(0), x.size(1)};
  Tensor y = dense_like(x), mean = empty_floats(x, size), rstd = empty_floats(x, size);
  if (x.numel() == 0) return {y, mean, rstd};
  const cudaStream_t stream = current_stream(x);
  const bool all_aligned = aligned(x.data_ptr()) && aligned(pointer<void>(residual));
  dispatch(x, all_aligned, [&](auto type, auto width, auto together) {
    using T = typename decltype(type)::type;
    constexpr int V = decltype(width)::value, K = decltype(together)::value;
    const NormShape shape = divide(x, weight, V);
    Tensor partial = empty_floats(x, {shape.outer, shape.chunks, 2, shape.groups * K});
    norm_sums_kernel<T, V, K>
        <<<blocks(shape), NORM_THREADS, 0, stream>>>(pointer<T>(x), pointer<float>(partial), shape);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    norm_write_kernel<T, V, K><<<blocks(shape), NORM_THREADS, 0, stream>>>(
        pointer<T>(x), pointer<float>(weight), pointer<float>(bias), pointer<T>(residual), pointer<float>(partial),
        pointer<T>(y), pointer<float>(mean), pointer<float>(rstd), shape, relu, eps);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {y, mean, rstd};
}

// Returns the gradients of x and of the residual ([0] where there is none, or it is grad itself), and sums [N, 2, C]:
// of the gradient before the activation, and of its product with the normalized x.
std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& rstd, MaybeTensor weight, MaybeTensor bias,
    MaybeTensor residual, bool relu) {
  torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  if (!relu) residual = std::nullopt;
  Tensor grad_x = dense_like(x), sums = empty_floats(x, {x.size(0), 2, x.size(1)});
  Tensor grad_residual = residual ? dense_like(x) : torch::stable::new_empty(x, {0});
  if (x.numel() == 0) return {grad_x, grad_residual, sums};
  const cudaStream_t stream = current_stream(x);
  const bool all_aligned =
      aligned(x.data_ptr()) && aligned(grad.data_ptr()) && aligned(pointer<void>(residual));
  dispatch(x, all_aligned, [&](auto type, auto width, auto together) {
    using T = typename decltype(type)::type;
    constexpr int V = decltype(width)::value, K = decltype(together)::value;
    const NormShape shape = divide(x, weight, V);
    Tensor partial = empty_floats(x, {shape.outer, shape.chunks, 2, shape.groups * K});
    norm_gradient_sums_kernel<T, V, K><<<blocks(shape), NORM_THREADS, 0, stream>>>(
        pointer<T>(grad), pointer<T>(x), pointer<float>(mean), pointer<float>(rstd), pointer<float>(weight),
        pointer<float>(bias), pointer<T>(residual), pointer<float>(partial), shape, relu);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    norm_gradient_write_kernel<T, V, K><<<blocks(shape), NORM_THREADS, 0, stream>>>(
        pointer<T>(grad), pointer<T>(x), pointer<float>(mean), pointer<float>(rstd), pointer<float>(weight),
        pointer<float>(bias), pointer<T>(residual), pointer<float>(partial), pointer<T>(grad_x),
        pointer<T>(grad_residual), pointer<float>(sums), shape, relu);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {grad_x, grad_residual, sums};
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CUDA, m) {
  m.impl("instance_norm_act", TORCH_BOX(&atelier::forward));
  m.impl("instance_norm_act_backward", TORCH_BOX(&atelier::backward));
}
