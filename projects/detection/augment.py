"""Augmentation: zoomed crops, mirror images, mosaics and colors, with the boxes moved along.

What a sample shows is chosen here, from the sizes of images alone; canvas.py draws it. A crop places one image on the
whole canvas, a mosaic places four of them round a point (Bochkovskiy et al. 2020, arXiv 2004.10934). The colors of the
whole canvas are changed by one matrix.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from projects.detection.annotations import AnnotatedImage

_MIN_VISIBLE = 0.25  # a box of which less than this share of the area is left is ignored
MIN_SIDE_PIXELS = 2.0  # a box with a shorter side on the canvas is left out
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Part(NamedTuple):
    """What a rectangle of the canvas shows.

    row: of the image. shown: left, top, right, bottom in pixels of the image. rectangle: the same on the canvas, whole
    numbers. flips: whether it is mirrored left to right, and top to bottom.
    """

    row: int
    shown: tuple[float, float, float, float]
    rectangle: tuple[int, int, int, int]
    flips: tuple[bool, bool] = (False, False)


class Sample(NamedTuple):
    """What a canvas shows, with the boxes on it.

    parts: their rectangles have no pixel in common. colors: float32 [3, 4], as crop_resize takes them. boxes: float32
    [B, 4], x1, y1, x2, y2 in pixels of the canvas. labels: int64 [B]. ignored: bool [B].
    """

    parts: Sequence[Part]
    colors: NDArray[np.float32]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]


class Augmentation(NamedTuple):
    """How much is changed: the settings of the same names."""

    mosaic: float
    zoom: float
    flip: bool
    flip_vertical: bool
    color: float


def fitted_size(height: int, width: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) with the proportions of an image that fits into a canvas (height, width), in pixels.

    It is computed in whole numbers, because those are the same in an ONNX file.
    """
    return (
        max(1, min(canvas[0], height * canvas[1] // width)),
        max(1, min(canvas[1], width * canvas[0] // height)),
    )


def letterbox(row: int, images: Sequence[AnnotatedImage], canvas: tuple[int, int]) -> Sample:
    """The whole image in this row in the upper left corner of the canvas (height, width)."""
    image = images[row]
    height, width = fitted_size(image.height, image.width, canvas)
    part = Part(row, (0, 0, image.width, image.height), (0, 0, width, height))
    scale = np.array([width / image.width, height / image.height] * 2, dtype=np.float32)
    return Sample([part], np.eye(3, 4, dtype=np.float32), image.boxes * scale, image.labels, image.ignored)


def training_sample(
    row: int,
    images: Sequence[AnnotatedImage],
    canvas: tuple[int, int],
    augmentation: Augmentation,
    random: np.random.Generator,
) -> Sample:
    """The image in this row, alone or in a mosaic with three others, on a canvas (height, width)."""
    if random.random() < augmentation.mosaic:
        y, x = (round(float(random.uniform(0.3, 0.7)) * side) for side in canvas)
        rows = [row, *(int(other) for other in random.integers(0, len(images), 3))]
        height, width = canvas
        rectangles = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    else:
        rows, rectangles = [row], [(0, 0, canvas[1], canvas[0])]
    placed = [_place(*each, images, canvas, augmentation, random) for each in zip(rows, rectangles, strict=True)]
    parts, boxes, labels, ignored = zip(*placed, strict=True)
    colors = random_colors(augmentation.color, random)
    return Sample(parts, colors, np.concatenate(boxes), np.concatenate(labels), np.concatenate(ignored))


def _place(
    row: int,
    rectangle: tuple[int, int, int, int],
    images: Sequence[AnnotatedImage],
    canvas: tuple[int, int],
    augmentation: Augmentation,
    random: np.random.Generator,
) -> tuple[Part, NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """A part of the image in this row, in the rectangle (left, top, right, bottom) of the canvas.

    Returns with it the boxes that are visible there, in pixels of the canvas, with labels and ignored. The image is
    scaled at random, by up to `zoom` times or to 1 / `zoom` of the size that fits the canvas, to a pixel at least.
    """
    image, (left, top, right, bottom) = images[row], rectangle
    zoom = float(np.exp(random.uniform(-1, 1) * np.log(augmentation.zoom)))
    fit_height, fit_width = fitted_size(image.height, image.width, canvas)
    y1, y2, from_y, to_y = _placed(image.height, fit_height / image.height * zoom, bottom - top, random)
    x1, x2, from_x, to_x = _placed(image.width, fit_width / image.width * zoom, right - left, random)
    flip_x, flip_y = augmentation.flip and random.random() < 0.5, augmentation.flip_vertical and random.random() < 0.5
    part = Part(row, (from_x, from_y, to_x, to_y), (left + x1, top + y1, left + x2, top + y2), (flip_x, flip_y))

    ratio = np.array([(x2 - x1) / (to_x - from_x), (y2 - y1) / (to_y - from_y)] * 2, dtype=np.float32)
    boxes = (image.boxes - np.array([from_x, from_y] * 2, dtype=np.float32)) * ratio
    if flip_x:
        boxes[:, 0::2] = x2 - x1 - boxes[:, 2::-2]
    if flip_y:
        boxes[:, 1::2] = y2 - y1 - boxes[:, 3::-2]
    boxes, kept, hidden = clip_boxes(boxes, y2 - y1, x2 - x1)
    corner = np.array(part.rectangle[:2] * 2, dtype=np.float32)
    return part, boxes[kept] + corner, image.labels[kept], (image.ignored | hidden)[kept]


def _placed(size: int, scale: float, space: int, random: np.random.Generator) -> tuple[int, int, float, float]:
    """Where a scaled image lies along one side of a rectangle: begin and end there in whole pixels, and what is shown
    of it, in its own pixels. A random part where it is larger than the rectangle, else all at a random position."""
    scale = max(scale, 1 / size)
    offset = space - size * scale  # of the image from the corner: negative where it is cut, else positive
    offset = float(random.uniform(min(0.0, offset), max(0.0, offset)))
    begin, end = round(max(0.0, offset)), round(min(space, offset + size * scale))
    return begin, end, max(0.0, (begin - offset) / scale), min(float(size), (end - offset) / scale)


def clip_boxes(
    boxes: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Boxes [B, 4] cut at the border; bool [B], which are left; bool [B], which are ignored as mostly cut off."""
    whole = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, dtype=np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = sides.min(axis=1, initial=np.inf) >= MIN_SIDE_PIXELS
    hidden = sides.prod(axis=1) < _MIN_VISIBLE * np.maximum(whole, 1e-6)
    return boxes, kept, hidden


def random_colors(strength: float, random: np.random.Generator) -> NDArray[np.float32]:
    """A change of brightness, contrast and saturation at random by up to `strength`, of the tint by half of it: a
    matrix, float32 [3, 4], that multiplies (red, green, blue, 1)."""
    brightness, contrast, saturation = 1 + strength * random.uniform(-1, 1, 3)
    tint = 1 + 0.5 * strength * random.uniform(-1, 1, 3)
    matrix = (saturation * np.eye(3) + (1 - saturation) * _LUMA) * (contrast * brightness * tint)[:, None]
    return np.column_stack([matrix, np.full(3, 128 * (1 - contrast) * brightness)]).astype(np.float32)
