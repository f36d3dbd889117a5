// The smallest library that can be told to work: atelier_sample::times, for float32 on a CPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "times.h"

torch::stable::Tensor times(const torch::stable::Tensor& x) {
  torch::stable::Tensor y = torch::stable::empty_like(x);
  const float* from = static_cast<const float*>(x.data_ptr());
  float* to = static_cast<float*>(y.data_ptr());
  for (int64_t i = 0; i < x.numel(); ++i) to[i] = static_cast<float>(from[i] * FACTOR);
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(atelier_sample, CPU, m) { m.impl("times", TORCH_BOX(&times)); }
