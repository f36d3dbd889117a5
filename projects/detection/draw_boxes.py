"""Boxes drawn on an image, each class in a color of its own. No torch and no matplotlib: infer draws too."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_HUE_STEP = 0.618034  # of the color circle from class to class: the golden ratio keeps neighbors apart


def draw_boxes(
    pixels: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    labels: Sequence[int],
    captions: Sequence[str],
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """The image with its boxes and captions, in the colors of their classes.

    pixels: uint8 [H, W, 3]; boxes: [B, 4], x1, y1, x2, y2 in its pixels; size: (width, height) of the result in pixels.
    """
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    if size is not None:
        image = image.resize(size, Image.Resampling.BILINEAR)
    scale = np.array([image.width / width, image.height / height] * 2)
    pen = ImageDraw.Draw(image)
    line_width = max(1, round(min(image.size) / 240))
    font = ImageFont.load_default(size=max(9.0, min(image.size) / 34))
    for box, label, caption in zip(boxes * scale, labels, captions, strict=True):
        color = class_color(label)
        x1, y1, x2, y2 = (float(value) for value in box)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=line_width)
        text = "".join(character if character.isprintable() else "?" for character in caption)
        if text:
            _, _, right, bottom = pen.textbbox((0, 0), text, font=font)
            x, y = min(x1, image.width - right - 2), max(0.0, y1 - bottom - 1)
            pen.rectangle((x, y, x + right + 2, y + bottom + 1), fill=color)
            pen.text((x + 1, y), text, fill="white" if sum(color) < 380 else "black", font=font)
    return image


def class_color(label: int) -> tuple[int, int, int]:
    """A strong color of a class: red, green, blue from 0 to 255."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + _HUE_STEP * label) % 1.0, 0.9, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
