"""Many images as one, in rows and columns, with captions. numpy and Pillow alone.

Text is drawn by Pillow's own font: no character of a class name has a meaning in it, and what the font lacks is shown
as a box.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GAP_PIXELS, _FONT_PIXELS, _TITLE_PIXELS = 4, 12, 15
_LINE_PIXELS = _FONT_PIXELS + 3
_BACKGROUND, _INK = (255, 255, 255), (0, 0, 0)

Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8] | None]


def image_grid(
    images: Images, *, columns: int = 8, captions: Sequence[str] = (), title: str = "", min_cell: int = 48
) -> Image.Image:
    """Images, row by row, as one RGB image.

    images: uint8 [N, H, W, C] (C 1 or 3), or a sequence of [H, W, C] with None for an empty cell. The first image gives
    the size of a cell: small ones are enlarged by a whole factor until the shorter side has `min_cell` pixels, larger
    ones are reduced to fit. captions: above the images, in lines; a row without captions has no space for them.
    """
    shown = [None if image is None else _rgb(image) for image in images]
    first = next(image for image in shown if image is not None)
    times = max(1, -(-min_cell // min(first.size)))
    width, height = first.width * times, first.height * times
    texts = [_lines(text) for text in captions] + [[]] * (len(shown) - len(captions))
    rows = [range(start, min(start + columns, len(shown))) for start in range(0, len(shown), columns)]
    heights = [max(len(texts[k]) for k in row) * _LINE_PIXELS for row in rows]
    top = _GAP_PIXELS + (_TITLE_PIXELS + 2 * _GAP_PIXELS if title else 0)
    whole_width = min(columns, len(shown)) * (width + _GAP_PIXELS) + _GAP_PIXELS
    grid = Image.new("RGB", (whole_width, top + sum(heights) + len(rows) * (height + _GAP_PIXELS)), _BACKGROUND)
    pen = ImageDraw.Draw(grid)
    font = ImageFont.load_default(_FONT_PIXELS)
    if title:
        _write(pen, (_GAP_PIXELS, _GAP_PIXELS), _printable(title), ImageFont.load_default(_TITLE_PIXELS), whole_width)
    for row, text_height in zip(rows, heights, strict=True):
        for column, k in enumerate(row):
            left = _GAP_PIXELS + column * (width + _GAP_PIXELS)
            for number, line in enumerate(texts[k]):
                _write(pen, (left, top + number * _LINE_PIXELS), line, font, width)
            image = shown[k]
            if image is not None:
                grid.paste(_fitted(image, times, width, height), (left, top + text_height))
        top += text_height + height + _GAP_PIXELS
    return grid


def save_image_grid(
    images: Images,
    path: Path,
    *,
    columns: int = 8,
    captions: Sequence[str] = (),
    title: str = "",
    min_cell: int = 48,
) -> None:
    """Writes an image grid as PNG, and the folder for it."""
    grid = image_grid(images, columns=columns, captions=captions, title=title, min_cell=min_cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(path)


def save_image(image: NDArray[np.uint8], path: Path) -> None:
    """Writes uint8 [H, W, C] (C 1 or 3) in the format that the path's ending names, and the folder for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _rgb(image).save(path)


def _rgb(image: NDArray[np.uint8]) -> Image.Image:
    """[H, W, 1] or [H, W, 3] as an image of Pillow's."""
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))


def _fitted(image: Image.Image, times: int, width: int, height: int) -> Image.Image:
    """An image in a cell: enlarged pixel by pixel, or reduced with antialiasing."""
    if image.width * times <= width and image.height * times <= height:
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    reduced = image.copy()
    reduced.thumbnail((width, height))
    return reduced


def _lines(text: str) -> list[str]:
    """A caption's lines, as they can be drawn."""
    return [_printable(line) for line in text.split("\n")] if text else []


def _printable(text: str) -> str:
    """The text with control characters and lone surrogates as escapes."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
) -> None:
    """One line, cut where it is wider than there is room."""
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    pen.text(place, text, _INK, font)
