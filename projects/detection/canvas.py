"""The canvases of a batch, drawn by cuda_ext.crop_resize on the device that holds the images' pixels.

Images that have a canvas for themselves are drawn together, and the smaller ones of mosaics are. Each is then copied to
its place.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuda_ext import crop_resize, normalize
from projects.detection.augment import Sample

PADDING = 114  # the gray round an image that does not fill the canvas


class Packed(NamedTuple):
    """Images of any size, one behind the other: the first arguments of crop_resize."""

    pixels: Tensor
    offsets: Tensor
    sizes: Tensor


class Group(NamedTuple):
    """P parts that are drawn together, as outputs of the size (height, width) of the largest.

    places: int64 [P, 7], the number of each part's canvas, its rectangle, its two flips. rows: int64 [P], the images.
    boxes: float32 [P, 4], what the outputs show: the part in the upper left corner, or the upper right one where it is
    mirrored. flips: bool [P]. colors: float32 [P, 3, 4].
    """

    places: NDArray[np.int64]  # an array, which stays on the CPU
    size: tuple[int, int]
    rows: Tensor
    boxes: Tensor
    flips: Tensor
    colors: Tensor


class Layout(NamedTuple):
    """What the N canvases of a batch show. padding: uint8 [N, 1, 1, 3], its color, changed like those of the images."""

    padding: Tensor
    groups: Sequence[Group]


def pack(images: Iterable[NDArray[np.uint8]], sizes: Sequence[tuple[int, ...]]) -> Packed:
    """Images uint8 [H, W, 3] in one tensor on the CPU. sizes: (H, W) of each."""
    ends = np.cumsum([0, *(height * width * 3 for height, width in sizes)])
    pixels = np.empty(ends[-1], dtype=np.uint8)
    for image, start, end in zip(images, ends[:-1], ends[1:], strict=True):
        pixels[start:end] = image.ravel()
    return Packed(torch.from_numpy(pixels), torch.from_numpy(ends[:-1]), torch.tensor(sizes))


def lay_out(samples: Sequence[Sample]) -> Layout:
    """The layout of a batch of samples."""
    colors = np.stack([sample.colors for sample in samples])
    padding = (colors @ np.array([PADDING, PADDING, PADDING, 1], dtype=np.float32)).clip(0, 255) + 0.5
    groups = []
    for num in sorted({len(sample.parts) for sample in samples}):
        chosen = [n for n, sample in enumerate(samples) if len(sample.parts) == num]
        numbers, parts = np.repeat(chosen, num), [part for n in chosen for part in samples[n].parts]
        rows, shown, rectangles, flips = (np.array(values) for values in zip(*parts, strict=True))
        sides = rectangles[:, 2:] - rectangles[:, :2]
        size = sides.max(0)
        end = shown[:, :2] + (shown[:, 2:] - shown[:, :2]) * size / sides
        boxes = np.concatenate([shown[:, :2], end], axis=1, dtype=np.float32)
        tensors = map(torch.from_numpy, (rows, boxes, flips[:, 0].copy(), colors[numbers]))
        places = np.column_stack([numbers, rectangles, flips])
        groups.append(Group(places, (int(size[1]), int(size[0])), *tensors))
    return Layout(torch.from_numpy(padding.astype(np.uint8)[:, None, None]), groups)


def draw(images: Packed, layout: Layout, canvas: tuple[int, int], table: Tensor) -> Tensor:
    """The canvases (height, width), normalized by the table [3, 256]: [N, 3, H, W] in channels_last, in its dtype."""
    row = normalize(layout.padding.expand(-1, -1, canvas[1], -1), table)
    result = row.expand(-1, -1, canvas[0], -1).contiguous(memory_format=torch.channels_last)
    for places, size, rows, boxes, flips, colors in layout.groups:
        drawn = crop_resize(*images, rows, boxes, size, table, flips=flips, colors=colors)
        for (number, left, top, right, bottom, flip_x, flip_y), output in zip(places.tolist(), drawn, strict=True):
            begin = size[1] - (right - left) if flip_x else 0
            shown = output[:, : bottom - top, begin : begin + right - left]
            result[number, :, top:bottom, left:right] = shown.flip(1) if flip_y else shown
    return result
