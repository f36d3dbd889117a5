// The bodies of the CUDA kernels behind plain functions, run by emulation.h.
#include "emulation.h"

#include <torch/headeronly/core/ScalarType.h>

#include <type_traits>
#include <vector>

#include "augment.cuh"
#include "dispatch.h"
#include "focal.cuh"
#include "instance_norm.cuh"

using namespace atelier;
using torch::headeronly::ScalarType;

namespace {

// Calls body(Type<T>, V); wide: V is the most that one instruction moves.
template <typename Body>
void with_width(int dtype, bool wide, Body body) {
  dispatch_floating(static_cast<ScalarType>(dtype), [&](auto type) {
    using T = typename decltype(type)::type;
    if (wide) {
      body(type, std::integral_constant<int, WIDEST<T>>{});
    } else {
      body(type, std::integral_constant<int, 1>{});
    }
  });
}

template <typename Word>
void augment_words(
    const uint8_t* images, const int64_t* indices, const int64_t* params, const void* table, void* out,
    int64_t num_images, unsigned num, Picture picture, bool wide, bool staged, unsigned threads, unsigned parts) {
  auto kernel = staged ? augment_kernel<Word, WIDEST<Word>, true>
      : wide           ? augment_kernel<Word, WIDEST<Word>, false>
                       : augment_kernel<Word, 1, false>;
  launch(
      kernel, num, parts, threads, images, indices, params, static_cast<const Word*>(table), static_cast<Word*>(out),
      num_images, picture);
}

}  // namespace

extern "C" void emulated_augment(
    const uint8_t* images, const int64_t* indices, const int64_t* params, const void* table, void* out,
    int64_t num_images, unsigned num, int height, int width, int channels, int padding, int64_t cutout, int word_bytes,
    bool wide, bool staged, unsigned threads, unsigned parts) {
  const Picture picture{height, width, channels, padding, cutout};
  auto words = word_bytes == 2 ? augment_words<uint16_t>
      : word_bytes == 4        ? augment_words<uint32_t>
                               : augment_words<uint64_t>;
  words(images, indices, params, table, out, num_images, num, picture, wide, staged, threads, parts);
}

extern "C" void emulated_focal(
    int dtype, bool wide, const void* logits, const int64_t* labels, int64_t rows, int classes, double alpha,
    double gamma, const float* grad, float* loss, void* grad_logits, unsigned blocks, unsigned threads) {
  with_width(dtype, wide, [&](auto type, auto width) {
    using T = typename decltype(type)::type;
    constexpr int V = decltype(width)::value;
    const Focal focal(alpha, gamma);
    std::vector<double> partial(blocks);
    const auto* from = static_cast<const T*>(logits);
    launch(focal_kernel<T, V>, blocks, 1, threads, from, labels, partial.data(), rows, classes, focal);
    launch(focal_finish_kernel, 1, 1, threads, partial.data(), loss, static_cast<int>(blocks));
    launch(
        focal_backward_kernel<T, V>, blocks, 1, threads, grad, from, labels, static_cast<T*>(grad_logits), rows,
        classes, focal);
  });
}

extern "C" void emulated_norm(
    int dtype, bool wide, bool channels_last, const void* x, const float* weight, const float* bias,
    const void* residual, const void* grad, void* y, float* mean, float* rstd, void* grad_x, void* grad_residual,
    float* sums, int64_t samples, int64_t channels, int64_t pixels, bool per_sample, bool relu, double eps,
    unsigned threads, int64_t blocks) {
  with_width(dtype, wide, [&](auto type, auto width) {
    using T = typename decltype(type)::type;
    constexpr int V = decltype(width)::value;
    const auto run = [&](auto together) {
      constexpr int K = decltype(together)::value;
      const NormShape shape(samples, channels, pixels, channels_last, per_sample, V, static_cast<int>(threads), blocks);
      const auto num = static_cast<unsigned>(shape.num_blocks());
      std::vector<float> partial(shape.outer * shape.chunks * 2 * shape.groups * K);
      const auto *from = static_cast<const T*>(x), *added = static_cast<const T*>(residual);
      const auto* slope = static_cast<const T*>(grad);
      launch(norm_sums_kernel<T, V, K>, num, 1, threads, from, partial.data(), shape);
      launch(
          norm_write_kernel<T, V, K>, num, 1, threads, from, weight, bias, added, partial.data(), static_cast<T*>(y),
          mean, rstd, shape, relu, eps);
      if (!relu) added = nullptr;
      launch(
          norm_gradient_sums_kernel<T, V, K>, num, 1, threads, slope, from, mean, rstd, weight, bias, added,
          partial.data(), shape, relu);
      launch(
          norm_gradient_write_kernel<T, V, K>, num, 1, threads, slope, from, mean, rstd, weight, bias, added,
          partial.data(), static_cast<T*>(grad_x), static_cast<T*>(grad_residual), sums, shape, relu);
    };
    if (channels_last) {
      run(width);
    } else {
      run(std::integral_constant<int, 1>{});
    }
  });
}
