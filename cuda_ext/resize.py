"""Boxes of images of any size, resized to one size, flipped, colored, erased and normalized, a batch at a time.

The weights are those of Pillow's and torchvision's antialiased bilinear resizing: linear, over one output pixel to both
sides. https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters
"""

import torch
from torch import Tensor
from torch.library import Library, register_fake

from cuda_ext import build, reference
from cuda_ext.checks import check_range, described, values_are_known

_SCHEMA = (
    "crop_resize(Tensor pixels, Tensor offsets, Tensor sizes, Tensor indices, Tensor boxes, Tensor? flips,"
    " Tensor? colors, Tensor? erased, Tensor table, int height, int width) -> Tensor"
)


def crop_resize(
    pixels: Tensor,
    offsets: Tensor,
    sizes: Tensor,
    indices: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    table: Tensor,
    *,
    flips: Tensor | None = None,
    colors: Tensor | None = None,
    erased: Tensor | None = None,
) -> Tensor:
    """Cuts a box out of an image for each output, resizes it, and then flips, colors, erases and normalizes it.

    pixels: uint8 [B], all images, one behind the other, each [H, W, 3] (RGB). offsets: int64 [M], where each begins.
    sizes: int64 [M, 2], height and width of each. indices: int64 [N], the image of each output. boxes: float32 [N, 4],
    left, top, right, bottom in pixels of the image, (0, 0, W, H) for all of it; fractions count, pixels that a box does
    not touch do not. Where a box reaches out of its image, the result is 0 (the mean). output_size: height, width.
    table: [3, 256], the normalized value of each byte in each channel, as `lookup_table` makes it; its dtype, any
    floating one, is the result's. flips: bool [N], which outputs are mirrored left to right.
    colors: float32 [N, 3, 4]; red, green and blue in [0, 255] become colors[:, :3] · rgb + colors[:, 3], bounded by 0
    and 255. erased: int64 [N, 4], left, top, right, bottom of a box of the finished output that is set to 0; nothing
    where it is empty.
    Resized values are rounded to bytes once, after the colors: within one level of Pillow and torchvision, and of
    each other on all devices. Returns [N, 3, height, width] in channels_last memory format. No derivative.
    Raises ValueError; on a GPU an index, size or box out of range fails as a device assertion.
    """
    _check(pixels, offsets, sizes, indices, boxes, output_size, table, flips, colors, erased)
    if not torch.compiler.is_compiling():
        build.ensure(pixels.device.type)
    optional = [None if part is None else part.contiguous() for part in (flips, colors, erased)]
    result: Tensor = torch.ops.atelier.crop_resize(  # sizes are numbers in tensors: a graph holds it as one node
        *(part.contiguous() for part in (pixels, offsets, sizes, indices, boxes)),
        *optional,
        table.contiguous(),
        *output_size,
    )
    return result


def color_matrices(brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """The `colors` of crop_resize: float32 [N, 3, 4], from float32 [N] on any device.

    hue, in turns: colors are turned about the gray axis, by a third red becomes green. saturation: 0 leaves gray
    (Rec. 601 luma), 1 changes nothing. contrast: factor of the difference from mid-gray, 127.5, instead of from the
    image's mean, which is not known. brightness: factor. They are applied in this order.
    """
    one = torch.eye(3, device=hue.device)
    cross = one.roll(1, 0) - one.roll(2, 0)  # made on the device, which need not be waited for
    luma = (0.299 * one[0] + 0.587 * one[1] + 0.114 * one[2]).expand(3, 3)
    cos, sin = (part[:, None, None] for part in (torch.cos(2 * torch.pi * hue), torch.sin(2 * torch.pi * hue)))
    turn = cos * one + (1 - cos) / 3 + sin / 3**0.5 * cross
    kept, stretch, factor = (part[:, None, None] for part in (saturation, contrast, brightness))
    linear = stretch * (kept * one + (1 - kept) * luma) @ turn
    return factor * torch.cat([linear, 127.5 * (1 - stretch).expand(-1, 3, 1)], 2)


def _check(
    pixels: Tensor,
    offsets: Tensor,
    sizes: Tensor,
    indices: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    table: Tensor,
    flips: Tensor | None,
    colors: Tensor | None,
    erased: Tensor | None,
) -> None:
    """Raises ValueError for arguments that crop_resize does not take."""
    num_images, num = len(offsets), len(indices)
    wanted = {
        "pixels": (pixels, torch.uint8, (pixels.numel(),)),
        "offsets": (offsets, torch.int64, (num_images,)),
        "sizes": (sizes, torch.int64, (num_images, 2)),
        "indices": (indices, torch.int64, (num,)),
        "boxes": (boxes, torch.float32, (num, 4)),
        "flips": (flips, torch.bool, (num,)),
        "colors": (colors, torch.float32, (num, 3, 4)),
        "erased": (erased, torch.int64, (num, 4)),
        "table": (table, table.dtype, (3, 256)),
    }
    for name, (tensor, dtype, shape) in wanted.items():
        if tensor is None:
            continue
        if tensor.dtype != dtype or tensor.shape != shape:
            raise ValueError(f"{name}: {described(tensor)}; must be {str(dtype).removeprefix('torch.')} {list(shape)}")
        if tensor.device != pixels.device:
            raise ValueError(f"{name}: on {tensor.device}; must be on {pixels.device}, where pixels are")
    if not table.is_floating_point() or table.itemsize not in (2, 4, 8):
        raise ValueError(f"table: {described(table)}; must be floating point [3, 256]")
    if table.requires_grad or boxes.requires_grad or (colors is not None and colors.requires_grad):
        raise ValueError("table, boxes or colors: requires a gradient; crop_resize has no derivative")
    if len(output_size) != 2 or not all(0 < side < 2**15 for side in output_size):
        raise ValueError(f"output_size: {output_size}; must be height and width from 1 to {2**15 - 1}")
    if values_are_known(pixels):
        _check_values(pixels, offsets, sizes, indices, boxes)


def _check_values(pixels: Tensor, offsets: Tensor, sizes: Tensor, indices: Tensor, boxes: Tensor) -> None:
    """Raises ValueError for images that are not there, and for boxes that are none."""
    check_range("indices", indices, len(offsets))
    check_range("sizes", sizes.flatten(), 2**30 + 1, low=1)
    check_range("offsets", offsets, pixels.numel() + 1)
    check_range("offsets, end of the image", offsets + sizes.prod(1) * 3, pixels.numel() + 1)
    are_boxes = (boxes.abs() <= 1e9).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
    if not are_boxes.all():
        wrong = boxes[int((~are_boxes).nonzero()[0])].tolist()
        raise ValueError(f"boxes: {wrong}; must be left < right and top < bottom, in pixels up to 1e9")


def register(library: Library, namespace: str) -> None:
    """Adds the operator to a namespace: schema, plain kernel for every device, shapes."""
    library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl("crop_resize", reference.crop_resize, "CompositeExplicitAutograd")
    register_fake(f"{namespace}::crop_resize", _fake, lib=library)


def _fake(
    pixels: Tensor,
    offsets: Tensor,
    sizes: Tensor,
    indices: Tensor,
    boxes: Tensor,
    flips: Tensor | None,
    colors: Tensor | None,
    erased: Tensor | None,
    table: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """The result's shape."""
    shape = (indices.shape[0], 3, height, width)
    return torch.empty(shape, dtype=table.dtype, device=pixels.device, memory_format=torch.channels_last)
