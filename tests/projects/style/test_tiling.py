"""A photograph that is painted in tiles has no seam: against the same paint in one pass, and against what is around."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.inference import OnnxModel
from projects.style.config import TASK, ModelFacts
from projects.style.synthetic import draw_landscapes
from projects.style.tiling import Painter, spans

TILE = 144
Pixels = NDArray[np.uint8]


@pytest.fixture
def painter(model_path: Path) -> Painter:
    model = OnnxModel(model_path, task=TASK, facts=ModelFacts, threads=1)
    return Painter(model, [0.5, 0.5, 0.0], keep_colors=0.0, tile=TILE)


@pytest.fixture
def photograph() -> Pixels:
    """Of a size that no tile divides."""
    landscape: Pixels = draw_landscapes(1, seed=11, size=330)[0]
    return landscape[:, :287]


def test_tiles_equal_one_pass_with_the_same_statistics_to_a_gray_level(painter: Painter, photograph: Pixels) -> None:
    whole, _ = painter.run(photograph, painter.statistics(photograph))
    tiled = painter.paint(photograph)
    apart = np.abs(whole.astype(int) - tiled)
    assert apart.max() <= 1
    assert np.mean(apart > 0) < 0.01


def test_at_the_seams_the_difference_to_one_pass_is_as_smooth_as_elsewhere(
    painter: Painter, photograph: Pixels
) -> None:
    """The whole image by its own statistics is what tiles approach; where they meet there must be no step."""
    whole, _ = painter.run(photograph, painter.no_statistics)
    difference = painter.paint(photograph).astype(float) - whole
    assert np.abs(difference).mean() < 25  # the statistics are those of a small copy
    for axis, borders in ((0, seams(330, painter)), (1, seams(287, painter))):
        steps = np.abs(np.diff(difference, axis=axis)).mean((1 - axis, 2))
        assert len(borders) >= 2
        elsewhere = np.delete(steps, borders)
        assert steps[borders].mean() < elsewhere.mean() + 2 * elsewhere.std()


def test_statistics_of_each_tiles_own_would_be_seen(
    painter: Painter, photograph: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the two tests above can fail."""
    whole, _ = painter.run(photograph, painter.statistics(photograph))
    monkeypatch.setattr(painter, "statistics", lambda _: painter.no_statistics)
    assert np.abs(painter.paint(photograph).astype(int) - whole).max() > 10


def seams(length: int, painter: Painter) -> list[int]:
    """The last row or column before each border between tiles."""
    return [rows.stop - 1 for rows, _ in spans(length, TILE, painter.facts.margin, painter.facts.stride)][:-1]


def test_no_pass_is_larger_than_a_tile(painter: Painter, photograph: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    inner = OnnxModel.run

    def run(self: OnnxModel[ModelFacts], **inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        shapes.append(inputs["image"].shape)
        return inner(self, **inputs)

    monkeypatch.setattr(OnnxModel, "run", run)
    painter.paint(photograph)
    assert len(shapes) > 4
    assert all(height * width <= TILE**2 for _, height, width, _ in shapes)


@pytest.mark.parametrize(("length", "tile", "margin"), [(1, 144, 36), (143, 144, 36), (1000, 144, 36), (5000, 512, 60)])
def test_the_parts_of_a_side_cover_it_once_with_their_margins(length: int, tile: int, margin: int) -> None:
    covered = []
    for part, outer in spans(length, tile, margin, 4):
        covered += list(range(length))[part]
        assert outer.start == 0 or (part.start - outer.start == margin and outer.start % 4 == 0)
        assert outer.stop == length or outer.stop - part.stop == margin
        assert outer.stop - outer.start <= tile
    assert covered == list(range(length))


def test_images_of_a_few_pixels_keep_their_size(painter: Painter) -> None:
    for shape in ((1, 1), (3, 40), (16, 15)):
        painted = painter.paint(np.full((*shape, 3), 90, np.uint8))
        assert painted.shape == (*shape, 3)
        assert painted.dtype == np.uint8
