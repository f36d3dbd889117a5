// crop_resize on a GPU: one launch.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "crop_resize.cuh"
#include "launch.cuh"

namespace atelier {
namespace {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

template <typename Word>
void launch(const CropInputs& in, const Tensor& table, const Tensor& out, int64_t num, cudaStream_t stream) {
  const int64_t across = divided_up(in.width, TILE_COLUMNS);
  const int64_t tiles = across * divided_up(in.height, CROP_THREADS / TILE_COLUMNS);
  STD_TORCH_CHECK(num * tiles < (int64_t{1} << 31), "crop_resize: more numbers than one launch takes");
  crop_resize_kernel<Word><<<static_cast<unsigned>(num * tiles), CROP_THREADS, 0, stream>>>(
      in, pointer<Word>(table), pointer<Word>(out), static_cast<int>(across), static_cast<int>(tiles));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor crop_resize(
    const Tensor& pixels, const Tensor& offsets, const Tensor& sizes, const Tensor& indices, const Tensor& boxes,
    MaybeTensor flips, MaybeTensor colors, MaybeTensor erased, const Tensor& table, int64_t height, int64_t width) {
  torch::stable::accelerator::DeviceGuard guard(pixels.get_device_index());
  const CropInputs in{
      pointer<uint8_t>(pixels), pointer<int64_t>(offsets), pointer<int64_t>(sizes),
      pointer<int64_t>(indices), pointer<float>(boxes), pointer<bool>(flips), pointer<float>(colors),
      pointer<int64_t>(erased), pixels.numel(), offsets.size(0), static_cast<int>(height), static_cast<int>(width)};
  Tensor out = torch::stable::empty(
      {indices.size(0), RGB, height, width}, table.scalar_type(), std::nullopt, pixels.device(), std::nullopt,
      torch::headeronly::MemoryFormat::ChannelsLast);
  if (out.numel() == 0) return out;
  auto chosen = table.element_size() == 2 ? launch<uint16_t>
      : table.element_size() == 4         ? launch<uint32_t>
                                          : launch<uint64_t>;
  chosen(in, table, out, indices.size(0), current_stream(pixels));
  return out;
}

}  // namespace
}  // namespace atelier

STABLE_TORCH_LIBRARY_IMPL(atelier, CUDA, m) {
  m.impl("crop_resize", TORCH_BOX(&atelier::crop_resize));
}
