// augment on a GPU: one launch.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>

#include "augment.cuh"
#include "launch.cuh"

namespace atelier {
namespace {

using torch::stable::Tensor;
constexpr int VECTORS_A_THREAD = 4;  // of a picture that is not staged

struct Arguments {
  const uint8_t* images;
  const int64_t *indices, *params;
  const void* table;
  void* out;
  int64_t num_images, num;
  Picture picture;
};

template <typename Word, int V, bool STAGED>
void launch(const Arguments& a, cudaStream_t stream) {
  const int64_t parts = STAGED ? 1 : divided_up(a.picture.numel(), V * AUGMENT_THREADS * VECTORS_A_THREAD);
  const dim3 blocks(static_cast<unsigned>(a.num), static_cast<unsigned>(std::min<int64_t>(parts, 65535)));
  augment_kernel<Word, V, STAGED><<<blocks, AUGMENT_THREADS, 0, stream>>>(
      a.images, a.indices, a.params, static_cast<const Word*>(a.table), static_cast<Word*>(a.out), a.num_images,
      a.picture);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename Word>
void choose(const Arguments& a, cudaStream_t stream) {
  const bool fits = a.picture.numel() <= STAGED_BYTES && a.picture.channels <= STAGED_CHANNELS;
  if (a.picture.numel() % WIDEST<Word> != 0) {
    launch<Word, 1, false>(a, stream);
  } else if (fits) {
    launch<Word, WIDEST<Word>, true>(a, stream);
  } else {
    launch<Word, WIDEST<Word>, false>(a, stream);
  }
}

Tensor augment(
    const Tensor& images, const Tensor& indices, const Tensor& params, const Tensor& table, int64_t padding,
    int64_t cutout) {
  STD_TORCH_CHECK(
      images.is_contiguous() && indices.is_contiguous() && params.is_contiguous() && table.is_contiguous(),
      "augment: must be contiguous");
  torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  const Picture picture{
      static_cast<int>(images.size(1)), static_cast<int>(images.size(2)), static_cast<int>(images.size(3)),
      static_cast<int>(padding), cutout};
  Tensor out = torch::stable::empty(
      {indices.size(0), images.size(3), images.size(1), images.size(2)}, table.scalar_type(), std::nullopt,
      images.device(), std::nullopt, torch::headeronly::MemoryFormat::ChannelsLast);
  if (out.numel() == 0) return out;
  const Arguments arguments{
      pointer<uint8_t>(images), pointer<int64_t>(indices), pointer<int64_t>(params), table.data_ptr(), out.data_ptr(),
      images.size(0),           indices.size(0),           picture};
  auto chosen = table.element_size() == 2 ? choose<uint16_t>
      : table.element_size() == 4         ? choose<uint32_t>
                                          : choose<uint64_t>;
  chosen(arguments, current_stream(images));
  return out;
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CUDA, m) {
  m.impl("augment", TORCH_BOX(&atelier::augment));
}
