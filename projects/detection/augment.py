"""Augmentation: zoomed crops, mirror images, mosaics and colors, with the boxes moved along.

A crop places one image on the whole canvas, a mosaic places four of them round a point (Bochkovskiy et al. 2020, arXiv
2004.10934). The colors of the whole canvas are changed by one matrix.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PADDING = 114  # the gray round an image that does not fill the canvas
_MIN_VISIBLE = 0.25  # a box of which less than this share of the area is left is ignored
MIN_SIDE_PIXELS = 2.0  # a box with a shorter side on the canvas is left out
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Sample(NamedTuple):
    """An image with its boxes.

    pixels: uint8 [H, W, 3]; boxes: float32 [B, 4], x1, y1, x2, y2 in these pixels; labels: int64 [B];
    ignored: bool [B].
    """

    pixels: NDArray[np.uint8]
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


def letterbox(sample: Sample, canvas: tuple[int, int]) -> Sample:
    """The whole image, resized with antialiasing, in the upper left corner of the canvas (height, width)."""
    size = sample.pixels.shape[:2]
    height, width = fitted_size(size[0], size[1], canvas)
    pixels = np.full((*canvas, 3), PADDING, dtype=np.uint8)
    pixels[:height, :width] = resized(sample.pixels, (height, width))
    scale = np.array([width / size[1], height / size[0]] * 2, dtype=np.float32)
    return sample._replace(pixels=pixels, boxes=sample.boxes * scale)


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image resized to (height, width)."""
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.uint8)


def training_sample(
    index: int,
    num: int,
    fetch: Callable[[int], Sample],
    canvas: tuple[int, int],
    augmentation: Augmentation,
    random: np.random.Generator,
) -> Sample:
    """Image `index` of `num`, alone or in a mosaic with three others, on a canvas (height, width).

    fetch: gives the stored image of an index.
    """
    pixels = np.full((*canvas, 3), PADDING, dtype=np.uint8)
    if random.random() < augmentation.mosaic:
        row, column = (round(float(random.uniform(0.3, 0.7)) * side) for side in canvas)
        others = [int(other) for other in random.integers(0, num, 3)]
        parts = []
        for number, row_of_image in enumerate([index, *others]):
            top, left = (0, row)[number // 2], (0, column)[number % 2]
            bottom, right = (row, canvas[0])[number // 2], (column, canvas[1])[number % 2]
            rectangle = (top, left, bottom, right)
            parts.append(place(pixels, rectangle, fetch(row_of_image), canvas, augmentation, random))
    else:
        parts = [place(pixels, (0, 0, *canvas), fetch(index), canvas, augmentation, random)]
    boxes, labels, ignored = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Sample(change_colors(pixels, augmentation.color, random), boxes, labels, ignored)


def place(
    pixels: NDArray[np.uint8],
    rectangle: tuple[int, int, int, int],
    sample: Sample,
    canvas: tuple[int, int],
    augmentation: Augmentation,
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Writes a part of an image into the rectangle (top, left, bottom, right) of the canvas `pixels`, in place.

    Returns the boxes that are visible there, in pixels of the canvas, with labels and ignored. The image is scaled at
    random, by up to `zoom` times or to 1 / `zoom` of the size that fits the canvas. A random part of it is shown where
    it is larger than the rectangle; where it is smaller, it is put at a random position in it.
    """
    top, left, bottom, right = rectangle
    height, width = sample.pixels.shape[:2]
    zoom = float(np.exp(random.uniform(-1, 1) * np.log(augmentation.zoom)))
    fit_height, fit_width = fitted_size(height, width, canvas)
    scale_y, scale_x = fit_height / height * zoom, fit_width / width * zoom
    # The offset of the scaled image from the corner of the rectangle: negative where it is cut, else positive.
    offset_y = float(random.uniform(*sorted((0.0, bottom - top - height * scale_y))))
    offset_x = float(random.uniform(*sorted((0.0, right - left - width * scale_x))))
    flip_x, flip_y = augmentation.flip and random.random() < 0.5, augmentation.flip_vertical and random.random() < 0.5

    y1, x1 = round(max(0.0, offset_y)), round(max(0.0, offset_x))
    y2 = round(min(bottom - top, offset_y + height * scale_y))
    x2 = round(min(right - left, offset_x + width * scale_x))
    if y2 <= y1 or x2 <= x1:
        return sample.boxes[:0], sample.labels[:0], sample.ignored[:0]
    # The part of the image that is shown, in its own pixels; the boxes are moved by the same numbers.
    shown = (
        max(0.0, (x1 - offset_x) / scale_x),
        max(0.0, (y1 - offset_y) / scale_y),
        min(float(width), (x2 - offset_x) / scale_x),
        min(float(height), (y2 - offset_y) / scale_y),
    )
    part = Image.fromarray(sample.pixels).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, box=shown)
    drawn = np.asarray(part)[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    pixels[top + y1 : top + y2, left + x1 : left + x2] = drawn

    ratio = np.array([(x2 - x1) / (shown[2] - shown[0]), (y2 - y1) / (shown[3] - shown[1])] * 2, dtype=np.float32)
    boxes = (sample.boxes - np.array(shown[:2] * 2, dtype=np.float32)) * ratio
    if flip_x:
        boxes = np.stack([x2 - x1 - boxes[:, 2], boxes[:, 1], x2 - x1 - boxes[:, 0], boxes[:, 3]], axis=1)
    if flip_y:
        boxes = np.stack([boxes[:, 0], y2 - y1 - boxes[:, 3], boxes[:, 2], y2 - y1 - boxes[:, 1]], axis=1)
    boxes, kept, hidden = clip_boxes(boxes, y2 - y1, x2 - x1)
    corner = np.array([left + x1, top + y1] * 2, dtype=np.float32)
    return boxes[kept] + corner, sample.labels[kept], (sample.ignored | hidden)[kept]


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


def change_colors(pixels: NDArray[np.uint8], strength: float, random: np.random.Generator) -> NDArray[np.uint8]:
    """Pixels with brightness, contrast and saturation changed at random by up to `strength`, the tint by half of it."""
    brightness, contrast, saturation = 1 + strength * random.uniform(-1, 1, 3)
    tint = 1 + 0.5 * strength * random.uniform(-1, 1, 3)
    if strength == 0:
        return pixels
    to_gray = np.outer(_LUMA, np.ones(3))
    matrix = (saturation * np.eye(3) + (1 - saturation) * to_gray) * (contrast * brightness * tint)
    shift = 128 * (1 - contrast) * brightness
    changed = pixels.reshape(-1, 3).astype(np.float32) @ matrix.astype(np.float32) + np.float32(shift + 0.5)
    result: NDArray[np.uint8] = np.clip(changed, 0, 255).astype(np.uint8).reshape(pixels.shape)
    return result
