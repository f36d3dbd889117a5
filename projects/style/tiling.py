"""Painting a photograph of any size in bounded memory: overlapping tiles, with the same statistics for all.

An output pixel depends on its surroundings up to the graph's margin, and on the whole image through the means and
deviations of the instance norms. Tiles are cut with that margin around them, at multiples of the graph's stride. The
statistics are measured once, on a copy that is small enough for one pass, and given to every tile. So tiles fit
together up to rounding. What remains is the difference between the statistics of the small copy and those of the whole
image, which is the same everywhere.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.inference import OnnxModel
from projects.style.config import ModelFacts

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB


class Painter:
    """An exported graph with its settings: photographs in, paintings of the same size out.

    blend: the weight of each style. keep_colors: share of the photograph's colors, 0 to 1. tile: side of what one pass
    takes, in pixels. Raises UserError for a tile that is mostly margin, and for facts that cannot be.
    """

    def __init__(self, model: OnnxModel[ModelFacts], blend: Sequence[float], keep_colors: float, tile: int) -> None:
        facts = model.facts
        if min(facts.channels, facts.stride, facts.min_side) < 1 or facts.margin < 0 or facts.min_side > 1024:
            raise UserError("unusable facts", model.path, "export it again")
        if tile < (least := 4 * max(facts.margin, facts.stride)):
            raise UserError("tiles that are mostly margin", f"--tile {tile}", f"give at least {least}")
        self.model, self.facts, self.tile = model, facts, tile
        self.blend = np.asarray([blend], dtype=np.float32)
        self.keep_colors = np.asarray([keep_colors], dtype=np.float32)
        self.no_statistics = np.zeros((0, 2, facts.channels), dtype=np.float32)

    def paint(self, photograph: Pixels) -> Pixels:
        """uint8 [H, W, 3] → the same, painted."""
        height, width = photograph.shape[:2]
        padded = _at_least(photograph, self.facts.min_side)
        if padded.shape[0] * padded.shape[1] <= self.tile**2:
            painted, _ = self.run(padded, self.no_statistics)
            return painted[:height, :width]
        statistics = self.statistics(padded)
        result = np.empty_like(padded)
        for rows, outer_rows in spans(padded.shape[0], self.tile, self.facts.margin, self.facts.stride):
            for columns, outer_columns in spans(padded.shape[1], self.tile, self.facts.margin, self.facts.stride):
                painted, _ = self.run(padded[outer_rows, outer_columns], statistics)
                top, left = rows.start - outer_rows.start, columns.start - outer_columns.start
                bottom, right = top + rows.stop - rows.start, left + columns.stop - columns.start
                result[rows, columns] = painted[top:bottom, left:right]
        return result[:height, :width]

    def statistics(self, photograph: Pixels) -> NDArray[np.float32]:
        """The statistics of the graph's norms, of a copy of a photograph that is no larger than a tile."""
        height, width = photograph.shape[:2]
        scale = min(1.0, math.sqrt(self.tile**2 / (height * width)))
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        copy = np.asarray(Image.fromarray(photograph).resize(size, Image.Resampling.LANCZOS))
        return self.run(_at_least(copy, self.facts.min_side), self.no_statistics)[1]

    def run(self, photograph: Pixels, statistics: NDArray[np.float32]) -> tuple[Pixels, NDArray[np.float32]]:
        """One pass: the painting, and the image's own statistics, float32 [1, 2, channels]."""
        outputs = self.model.run(
            image=photograph[None], blend=self.blend, keep_colors=self.keep_colors, statistics=statistics
        )
        return outputs["painted"][0], outputs["own_statistics"]


def spans(length: int, tile: int, margin: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """The parts of a side of `length` pixels, and each with its margin within the side: at most `tile` pixels."""
    step = (tile - 2 * margin) // stride * stride
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(start, stop), slice(max(0, start - margin), min(length, stop + margin))


def _at_least(photograph: Pixels, side: int) -> Pixels:
    """A photograph, its last row and column repeated where a side has fewer pixels than `side`."""
    missing = [max(0, side - have) for have in photograph.shape[:2]]
    return np.pad(photograph, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
