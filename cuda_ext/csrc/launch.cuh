// What every launch of a CUDA kernel needs.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>

#include "vector.cuh"

namespace atelier {

// The stream that PyTorch works on, on a tensor's device.
inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

template <typename T>
T* pointer(const torch::stable::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

template <typename T>
T* pointer(const std::optional<torch::stable::Tensor>& tensor) {
  return tensor ? static_cast<T*>(tensor->data_ptr()) : nullptr;
}

inline int64_t divided_up(int64_t number, int64_t by) {
  return (number + by - 1) / by;
}

}  // namespace atelier
