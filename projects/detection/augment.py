"""Training pictures out of stored ones: one primitive that lays a part of a picture onto a rectangle of the canvas, at
any scale, and takes its boxes along. A zoomed crop lays one picture over the whole canvas, a mosaic four of them round
a point (Bochkovskiy et al. 2020, arXiv 2004.10934). Colors move as a whole, by one matrix.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PADDING = 114  # the gray round a picture that does not fill the canvas
MIN_VISIBLE = 0.25  # a box of which less than this share is left is not to be counted
MIN_SIDE_PIXELS = 2.0  # a smaller box is left out
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Sample(NamedTuple):
    """A picture with its boxes: pixels uint8 [H, W, 3], boxes float32 [B, 4] in its pixels, labels int64 [B], uncounted
    bool [B]."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    uncounted: NDArray[np.bool_]


class Moves(NamedTuple):
    """How much is changed: the settings of the same names."""

    mosaic: float
    zoom: float
    flip: bool
    flip_vertical: bool
    color: float


def fitted(height: int, width: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """The largest size of a picture's proportions within a canvas (height, width): whole numbers by whole-number
    arithmetic, which is the same in an ONNX file."""
    return (
        max(1, min(canvas[0], height * canvas[1] // width)),
        max(1, min(canvas[1], width * canvas[0] // height)),
    )


def letterbox(sample: Sample, canvas: tuple[int, int]) -> Sample:
    """The picture as a whole in the left upper corner of the canvas, with antialiasing."""
    size = sample.pixels.shape[:2]
    height, width = fitted(size[0], size[1], canvas)
    pixels = np.full((*canvas, 3), PADDING, dtype=np.uint8)
    pixels[:height, :width] = resized(sample.pixels, (height, width))
    scale = np.array([width / size[1], height / size[0]] * 2, dtype=np.float32)
    return sample._replace(pixels=pixels, boxes=sample.boxes * scale)


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture at another height and width."""
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.uint8)


def training_sample(
    index: int,
    num: int,
    fetch: Callable[[int], Sample],
    canvas: tuple[int, int],
    moves: Moves,
    random: np.random.Generator,
) -> Sample:
    """Picture `index` of `num`, alone or with three others, moved at random on a canvas of that size."""
    pixels = np.full((*canvas, 3), PADDING, dtype=np.uint8)
    if random.random() < moves.mosaic:
        row, column = (round(float(random.uniform(0.3, 0.7)) * side) for side in canvas)
        others = [int(other) for other in random.integers(0, num, 3)]
        parts = []
        for number, picture in enumerate([index, *others]):
            top, left = (0, row)[number // 2], (0, column)[number % 2]
            bottom, right = (row, canvas[0])[number // 2], (column, canvas[1])[number % 2]
            parts.append(lay(pixels, (top, left, bottom, right), fetch(picture), canvas, moves, random))
    else:
        parts = [lay(pixels, (0, 0, *canvas), fetch(index), canvas, moves, random)]
    boxes, labels, uncounted = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Sample(recolored(pixels, moves.color, random), boxes, labels, uncounted)


def lay(
    pixels: NDArray[np.uint8],
    place: tuple[int, int, int, int],
    sample: Sample,
    canvas: tuple[int, int],
    moves: Moves,
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Lays a part of a picture onto the rectangle `place` (top, left, bottom, right) of the canvas; returns the boxes
    that are to be seen there.

    The picture is scaled by up to `zoom` against what fills the canvas. It is cut where it is larger than the place,
    and where it is smaller it stands somewhere in it.
    """
    top, left, bottom, right = place
    height, width = sample.pixels.shape[:2]
    zoom = float(np.exp(random.uniform(-1, 1) * np.log(moves.zoom)))
    fit_height, fit_width = fitted(height, width, canvas)
    scale_y, scale_x = fit_height / height * zoom, fit_width / width * zoom
    # The offset of the scaled picture from the corner of the place: negative where it is cut, positive where it is not.
    offset_y = float(random.uniform(*sorted((0.0, bottom - top - height * scale_y))))
    offset_x = float(random.uniform(*sorted((0.0, right - left - width * scale_x))))
    flip_x, flip_y = moves.flip and random.random() < 0.5, moves.flip_vertical and random.random() < 0.5

    y1, x1 = round(max(0.0, offset_y)), round(max(0.0, offset_x))
    y2 = round(min(bottom - top, offset_y + height * scale_y))
    x2 = round(min(right - left, offset_x + width * scale_x))
    if y2 <= y1 or x2 <= x1:
        return sample.boxes[:0], sample.labels[:0], sample.uncounted[:0]
    # What of the picture is seen, in its own pixels; the same numbers carry the boxes.
    seen = (
        max(0.0, (x1 - offset_x) / scale_x),
        max(0.0, (y1 - offset_y) / scale_y),
        min(float(width), (x2 - offset_x) / scale_x),
        min(float(height), (y2 - offset_y) / scale_y),
    )
    part = Image.fromarray(sample.pixels).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, box=seen)
    drawn = np.asarray(part)[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    pixels[top + y1 : top + y2, left + x1 : left + x2] = drawn

    ratio = np.array([(x2 - x1) / (seen[2] - seen[0]), (y2 - y1) / (seen[3] - seen[1])] * 2, dtype=np.float32)
    boxes = (sample.boxes - np.array(seen[:2] * 2, dtype=np.float32)) * ratio
    if flip_x:
        boxes = np.stack([x2 - x1 - boxes[:, 2], boxes[:, 1], x2 - x1 - boxes[:, 0], boxes[:, 3]], axis=1)
    if flip_y:
        boxes = np.stack([boxes[:, 0], y2 - y1 - boxes[:, 3], boxes[:, 2], y2 - y1 - boxes[:, 1]], axis=1)
    boxes, kept, hidden = clipped(boxes, y2 - y1, x2 - x1)
    corner = np.array([left + x1, top + y1] * 2, dtype=np.float32)
    return boxes[kept] + corner, sample.labels[kept], (sample.uncounted | hidden)[kept]


def clipped(
    boxes: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Boxes cut at the border; which can still be seen; of which too little is left for them to be counted."""
    whole = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, dtype=np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = sides.min(axis=1, initial=np.inf) >= MIN_SIDE_PIXELS
    hidden = sides.prod(axis=1) < MIN_VISIBLE * np.maximum(whole, 1e-6)
    return boxes, kept, hidden


def recolored(pixels: NDArray[np.uint8], strength: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast, saturation and tint moved at random, each by up to `strength`."""
    brightness, contrast, saturation = 1 + strength * random.uniform(-1, 1, 3)
    tint = 1 + 0.5 * strength * random.uniform(-1, 1, 3)
    if strength == 0:
        return pixels
    to_grey = np.outer(LUMA, np.ones(3))
    matrix = (saturation * np.eye(3) + (1 - saturation) * to_grey) * (contrast * brightness * tint)
    shift = 128 * (1 - contrast) * brightness
    moved = pixels.reshape(-1, 3).astype(np.float32) @ matrix.astype(np.float32) + np.float32(shift + 0.5)
    clear: NDArray[np.uint8] = np.clip(moved, 0, 255).astype(np.uint8).reshape(pixels.shape)
    return clear
