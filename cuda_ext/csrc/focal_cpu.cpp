// sigmoid_focal_loss on a CPU: blocks of rows of about a fixed size, added up in their order, so that the sum does not
// depend on the number of threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "dispatch.h"
#include "focal.h"
#include "lanes.h"

namespace atelier {

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t BLOCK = 1 << 12;  // numbers of a block, about

// The logits of a block of rows, negated where the label is another, and their weights: 0 in ignored rows.
struct Block {
  std::vector<float> z, weight;
  int64_t first, count;

  template <typename T>
  ATELIER_EVERY_PROCESSOR void fill(
      const T* logits, const int64_t* labels, int64_t classes, int64_t row, int64_t rows, float positive_weight,
      float negative_weight) {
    first = row * classes;
    count = rows * classes;
    z.resize(count);
    weight.assign(count, negative_weight);
    int64_t at = 0;
    for (; at + LANES <= count; at += LANES) store<true>(-load<true>(logits + first + at, LANES), &z[at], LANES);
    for (; at < count; ++at) z[at] = -static_cast<float>(logits[first + at]);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t label = labels[row + i];
      if (label == IGNORED) {
        std::fill_n(&z[i * classes], classes, 0.0f);
        std::fill_n(&weight[i * classes], classes, 0.0f);
      } else if (label >= 0) {
        z[i * classes + label] = -z[i * classes + label];
        weight[i * classes + label] = positive_weight;
      }
    }
  }
};

// Calls body(full, at, lanes) for the numbers of a block; full is std::true_type where all lanes are there.
template <typename Body>
void for_each_lanes(int64_t count, Body body) {
  int64_t at = 0;
  for (; at + LANES <= count; at += LANES) body(std::true_type{}, at, LANES);
  if (at < count) body(std::false_type{}, at, static_cast<int>(count - at));
}

ATELIER_EVERY_PROCESSOR double sum_of(const Block& block, float gamma) {
  Lanes sum;
  for_each_lanes(block.count, [&](auto full, int64_t at, int lanes) {
    const Lanes z = load<full.value>(&block.z[at], lanes), weight = load<full.value>(&block.weight[at], lanes);
    sum = sum + weight * focal_loss(z, gamma);
  });
  double total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += static_cast<double>(sum[lane]);
  return total;
}

template <typename T>
ATELIER_EVERY_PROCESSOR void write_gradient(const Block& block, float gamma, float scale, T* grad_logits) {
  for_each_lanes(block.count, [&](auto full, int64_t at, int lanes) {
    const Lanes z = load<full.value>(&block.z[at], lanes), weight = load<full.value>(&block.weight[at], lanes);
    store<full.value>(weight * focal_slope(z, gamma) * scale, grad_logits + block.first + at, lanes);
  });
}

// Calls body(number of a block, block) on all threads.
template <typename T, typename Body>
void for_each_block(
    const Tensor& logits, const Tensor& labels, float positive_weight, float negative_weight, Body body) {
  const int64_t rows = logits.size(0), classes = logits.size(1), length = std::max<int64_t>(1, BLOCK / classes);
  const auto* from = static_cast<const T*>(logits.data_ptr());
  const auto* of_rows = static_cast<const int64_t*>(labels.data_ptr());
  torch::stable::parallel_for(0, (rows + length - 1) / length, 1, [&](int64_t begin, int64_t end) {
    Block block;
    for (int64_t number = begin; number < end; ++number) {
      const int64_t row = number * length;
      block.fill(from, of_rows, classes, row, std::min(length, rows - row), positive_weight, negative_weight);
      body(number, block);
    }
  });
}

void check(const Tensor& logits, const Tensor& labels) {
  STD_TORCH_CHECK(
      logits.dim() == 2 && logits.is_contiguous() && labels.is_contiguous() && labels.numel() == logits.size(0),
      "sigmoid_focal_loss: logits must be contiguous [R, C], labels [R]");
  const auto* label = static_cast<const int64_t*>(labels.data_ptr());
  for (int64_t row = 0; row < labels.numel(); ++row) {
    const bool valid = label[row] >= IGNORED && label[row] < logits.size(1);
    STD_TORCH_CHECK(valid, "labels[", row, "] = ", label[row], " is out of range");
  }
}

Tensor forward(const Tensor& logits, const Tensor& labels, double alpha, double gamma) {
  check(logits, labels);
  const Focal focal(alpha, gamma);
  std::vector<double> sums(logits.size(0));  // of blocks, of which there are no more than rows
  if (logits.numel()) {
    dispatch_floating(logits.scalar_type(), [&](auto type) {
      using T = typename decltype(type)::type;
      for_each_block<T>(
          logits, labels, focal.positive_weight, focal.negative_weight,
          [&](int64_t number, const Block& block) { sums[number] = sum_of(block, focal.gamma); });
    });
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return torch::stable::full({}, total, ScalarType::Float, std::nullopt, logits.device());
}

Tensor backward(const Tensor& grad, const Tensor& logits, const Tensor& labels, double alpha, double gamma) {
  check(logits, labels);
  const Focal focal(alpha, gamma);
  const float scale = *static_cast<const float*>(grad.data_ptr());
  Tensor grad_logits = torch::stable::empty(logits.sizes(), logits.scalar_type(), std::nullopt, logits.device());
  if (logits.numel() == 0) return grad_logits;
  dispatch_floating(logits.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    for_each_block<T>(
        logits, labels, -focal.positive_weight, focal.negative_weight, [&](int64_t, const Block& block) {
          write_gradient(block, focal.gamma, scale, static_cast<T*>(grad_logits.data_ptr()));
        });
  });
  return grad_logits;
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&atelier::forward));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&atelier::backward));
}
