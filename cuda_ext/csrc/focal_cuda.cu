// sigmoid_focal_loss on a GPU: one pass forward, one backward. Of the logits' size only their gradient is stored.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>

#include "dispatch.h"
#include "focal.cuh"
#include "launch.cuh"

namespace atelier {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

void check(const Tensor& logits, const Tensor& labels) {
  STD_TORCH_CHECK(
      logits.dim() == 2 && logits.is_contiguous() && labels.is_contiguous() && labels.numel() == logits.size(0),
      "sigmoid_focal_loss: logits must be contiguous [R, C], labels [R]");
}

// Calls body(Type<T>, V as an integral constant, number of blocks).
template <typename Body>
void dispatch(const Tensor& logits, Body body) {
  dispatch_floating(logits.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int V = WIDEST<T>;
    const bool wide = logits.size(1) % V == 0 && aligned(logits.data_ptr());
    const int64_t threads = logits.numel() / (wide ? V : 1);
    const int blocks = static_cast<int>(std::min<int64_t>(divided_up(threads, FOCAL_THREADS), FOCAL_BLOCKS));
    if (wide) {
      body(type, std::integral_constant<int, V>{}, blocks);
    } else {
      body(type, std::integral_constant<int, 1>{}, blocks);
    }
  });
}

Tensor forward(const Tensor& logits, const Tensor& labels, double alpha, double gamma) {
  check(logits, labels);
  torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  if (logits.numel() == 0) return torch::stable::full({}, 0.0, ScalarType::Float, std::nullopt, logits.device());
  const Focal focal(alpha, gamma);
  const cudaStream_t stream = current_stream(logits);
  Tensor loss = torch::stable::empty({}, ScalarType::Float, std::nullopt, logits.device());
  Tensor partial = torch::stable::empty({FOCAL_BLOCKS}, ScalarType::Double, std::nullopt, logits.device());
  dispatch(logits, [&](auto type, auto width, int blocks) {
    using T = typename decltype(type)::type;
    focal_kernel<T, decltype(width)::value><<<blocks, FOCAL_THREADS, 0, stream>>>(
        pointer<T>(logits), pointer<int64_t>(labels), pointer<double>(partial), logits.size(0),
        static_cast<int>(logits.size(1)), focal);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    focal_finish_kernel<<<1, FOCAL_THREADS, 0, stream>>>(pointer<double>(partial), pointer<float>(loss), blocks);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return loss;
}

Tensor backward(const Tensor& grad, const Tensor& logits, const Tensor& labels, double alpha, double gamma) {
  check(logits, labels);
  torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  Tensor grad_logits = torch::stable::empty(logits.sizes(), logits.scalar_type(), std::nullopt, logits.device());
  if (logits.numel() == 0) return grad_logits;
  const Focal focal(alpha, gamma);
  const cudaStream_t stream = current_stream(logits);
  dispatch(logits, [&](auto type, auto width, int blocks) {
    using T = typename decltype(type)::type;
    focal_backward_kernel<T, decltype(width)::value><<<blocks, FOCAL_THREADS, 0, stream>>>(
        pointer<float>(grad), pointer<T>(logits), pointer<int64_t>(labels), pointer<T>(grad_logits), logits.size(0),
        static_cast<int>(logits.size(1)), focal);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_logits;
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CUDA, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&atelier::forward));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&atelier::backward));
}
