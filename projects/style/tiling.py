"""Painting a photograph of any size in bounded memory: tiles that overlap, with one set of statistics for all.

What a pixel becomes depends on its surroundings up to the graph's margin, and on the whole picture through the means
and deviations of instance norms. Tiles are cut with that margin round them, at multiples of the graph's stride, so
that the first is as in the whole picture; the second is measured once, on a copy that is small enough for one pass, and
given to every tile. So tiles fit together up to rounding; what remains is the difference between the small copy's
statistics and the whole picture's, which is the same everywhere.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.inference import OnnxModel

Pixels = NDArray[np.uint8]


class Painter:
    """An exported graph with its settings: photographs in, paintings of the same size out.

    blend: a weight for each style. keep_colors: from 0 to 1. tile: side of what one pass takes, in pixels.
    """

    def __init__(self, model: OnnxModel, blend: Sequence[float], keep_colors: float, tile: int) -> None:
        self.model, self.tile = model, tile
        self.blend = np.asarray([blend], dtype=np.float32)
        self.keep_colors = np.asarray([keep_colors], dtype=np.float32)
        self.margin: int = model.metadata["margin"]
        self.stride: int = model.metadata["stride"]
        self.min_side: int = model.metadata["min_side"]
        self.no_statistics = np.zeros((0, 2, model.metadata["channels"]), dtype=np.float32)

    def paint(self, photograph: Pixels) -> Pixels:
        """uint8 [H, W, 3] → the same, painted."""
        height, width = photograph.shape[:2]
        padded = at_least(photograph, self.min_side)
        if padded.shape[0] * padded.shape[1] <= self.tile**2:
            painted, _ = self.run(padded, self.no_statistics)
            return painted[:height, :width]
        statistics = self.statistics(padded)
        result = np.empty_like(padded)
        for rows, outer_rows in spans(padded.shape[0], self.tile, self.margin, self.stride):
            for columns, outer_columns in spans(padded.shape[1], self.tile, self.margin, self.stride):
                painted, _ = self.run(padded[outer_rows, outer_columns], statistics)
                top, left = rows.start - outer_rows.start, columns.start - outer_columns.start
                bottom, right = top + rows.stop - rows.start, left + columns.stop - columns.start
                result[rows, columns] = painted[top:bottom, left:right]
        return result[:height, :width]

    def statistics(self, photograph: Pixels) -> NDArray[np.float32]:
        """What the graph's norms find in a copy of a photograph that is no larger than a tile."""
        height, width = photograph.shape[:2]
        scale = min(1.0, math.sqrt(self.tile**2 / (height * width)))
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        copy = np.asarray(Image.fromarray(photograph).resize(size, Image.Resampling.LANCZOS))
        return self.run(at_least(copy, self.min_side), self.no_statistics)[1]

    def run(self, photograph: Pixels, statistics: NDArray[np.float32]) -> tuple[Pixels, NDArray[np.float32]]:
        """One pass: the painting, and the statistics of the norms."""
        found = self.model.run(
            image=photograph[None], blend=self.blend, keep_colors=self.keep_colors, statistics=statistics
        )
        return found["painted"][0], found["found"]


def spans(length: int, tile: int, margin: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Parts of a side, and each with the margin round it, as far as there is any: at most `tile` long."""
    step = (tile - 2 * margin) // stride * stride
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(start, stop), slice(max(0, start - margin), min(length, stop + margin))


def at_least(photograph: Pixels, side: int) -> Pixels:
    """A photograph with its last rows and columns repeated where it is too small."""
    missing = [max(0, side - have) for have in photograph.shape[:2]]
    return np.pad(photograph, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
