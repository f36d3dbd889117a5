// The kernels of sigmoid_focal_loss. Sums are added up in an order that depends on the size alone.
#pragma once

#include <cassert>
#include <cmath>
#include <cstdint>

#include "focal.h"
#include "vector.cuh"

namespace atelier {

constexpr int FOCAL_THREADS = 256;
constexpr int FOCAL_BLOCKS = 1056;  // at most: 8 for each of 132 processors

// The vectors of a thread in logits [rows, per_row * V]: every so many, without a division for each.
struct Walk {
  int64_t row, row_step;
  int column, column_step, per_row;

  __device__ Walk(int64_t first, int64_t step, int per_row)
      : row(first / per_row),
        row_step(step / per_row),
        column(static_cast<int>(first % per_row)),
        column_step(static_cast<int>(step % per_row)),
        per_row(per_row) {}

  __device__ Walk next() const {
    Walk moved = *this;
    moved.row += row_step;
    moved.column += column_step;
    if (moved.column >= per_row) {
      moved.column -= per_row;
      ++moved.row;
    }
    return moved;
  }
};

// Calls body(walk, label, logits) for the vectors of this thread; the next ones are on their way meanwhile.
template <typename T, int V, typename Body>
__device__ void for_each_vector(const T* logits, const int64_t* labels, int64_t rows, int classes, Body body) {
  const auto* from = reinterpret_cast<const Vector<T, V>*>(logits);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  Walk walk(static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, step, classes / V);
  if (walk.row >= rows) return;
  int64_t label = labels[walk.row];
  Vector<T, V> values = from[walk.row * walk.per_row + walk.column];
  while (true) {
    const Walk following = walk.next();
    const bool more = following.row < rows;
    const int64_t next_label = more ? labels[following.row] : 0;
    const Vector<T, V> next_values = more ? from[following.row * walk.per_row + following.column] : values;
    assert(label >= IGNORED && label < classes && "sigmoid_focal_loss: a label is out of range");
    body(walk, label, values);
    if (!more) return;
    walk = following;
    label = next_label;
    values = next_values;
  }
}

// The sum of a block's threads, in thread 0.
__device__ inline double sum_of_block(double value) {
  __shared__ double sums[FOCAL_THREADS];
  sums[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = FOCAL_THREADS / 2; half > 0; half /= 2) {
    if (threadIdx.x < half && threadIdx.x + half < blockDim.x) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  return sums[0];
}

// partial: one sum for each block.
template <typename T, int V>
__global__ void focal_kernel(
    const T* __restrict__ logits, const int64_t* __restrict__ labels, double* __restrict__ partial, int64_t rows,
    int classes, Focal focal) {
  float sum = 0, lost = 0;  // what rounding has taken from the sum is given back with the next term (Kahan)
  const auto add = [&](const Walk& walk, int64_t label, const Vector<T, V>& values) {
    if (label == IGNORED) return;
    const int positive = static_cast<int>(label) - walk.column * V;
    float terms = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float logit = static_cast<float>(values.values[i]);
      const float term = focal_loss(i == positive ? logit : -logit, focal.gamma);
      terms += (i == positive ? focal.positive_weight : focal.negative_weight) * term;
    }
    const float corrected = terms - lost, total = sum + corrected;
    lost = (total - sum) - corrected;
    sum = total;
  };
  for_each_vector<T, V>(logits, labels, rows, classes, add);
  const double total = sum_of_block(static_cast<double>(sum) - static_cast<double>(lost));
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// One block: the sum of all partial sums.
__global__ void focal_finish_kernel(const double* __restrict__ partial, float* __restrict__ loss, int num_partial) {
  double sum = 0;
  for (int i = threadIdx.x; i < num_partial; i += blockDim.x) sum += partial[i];
  const double total = sum_of_block(sum);
  if (threadIdx.x == 0) *loss = static_cast<float>(total);
}

// grad: one number, the gradient of the sum.
template <typename T, int V>
__global__ void focal_backward_kernel(
    const float* __restrict__ grad, const T* __restrict__ logits, const int64_t* __restrict__ labels,
    T* __restrict__ grad_logits, int64_t rows, int classes, Focal focal) {
  const float scale = *grad;
  auto* to = reinterpret_cast<Vector<T, V>*>(grad_logits);
  const auto write = [&](const Walk& walk, int64_t label, const Vector<T, V>& values) {
    const int positive = static_cast<int>(label) - walk.column * V;
    Vector<T, V> result;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float logit = static_cast<float>(values.values[i]);
      const float slope = focal_slope(i == positive ? logit : -logit, focal.gamma);
      const float weight = i == positive ? -focal.positive_weight : focal.negative_weight;
      result.values[i] = static_cast<T>(label == IGNORED ? 0.0f : scale * weight * slope);
    }
    to[walk.row * walk.per_row + walk.column] = result;
  };
  for_each_vector<T, V>(logits, labels, rows, classes, write);
}

}  // namespace atelier
