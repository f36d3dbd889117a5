"""Many small pictures as one: a sheet of rows and columns, enlarged pixel by pixel. numpy and Pillow alone."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMALLEST_CELL_PIXELS = 48
GAP_PIXELS, GROUND = 2, 255


def sheet(pictures: NDArray[np.uint8], columns: int) -> Image.Image:
    """Pictures uint8 [N, H, W, C] (C 1 or 3), row by row, with gaps between them."""
    num, height, width, channels = pictures.shape
    times = max(1, -(-SMALLEST_CELL_PIXELS // min(height, width)))
    pictures = pictures.repeat(times, axis=1).repeat(times, axis=2)
    rows = -(-num // columns)
    down, across = height * times + GAP_PIXELS, width * times + GAP_PIXELS
    whole = np.full((rows * down + GAP_PIXELS, columns * across + GAP_PIXELS, channels), GROUND, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = GAP_PIXELS + number // columns * down, GAP_PIXELS + number % columns * across
        whole[top : top + height * times, left : left + width * times] = picture
    return Image.fromarray(whole[:, :, 0] if channels == 1 else whole)


def save_sheet(pictures: NDArray[np.uint8], columns: int, path: Path) -> None:
    """Writes a sheet as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, columns).save(path)
