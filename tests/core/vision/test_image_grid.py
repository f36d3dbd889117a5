"""Grids hold every image where it belongs, and any text can be written over them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.vision.classification_report import confusion_counts, plot_results, worst_mistakes
from core.vision.image_grid import image_grid, save_image, save_image_grid


def colors(num: int, size: int = 4, channels: int = 3) -> NDArray[np.uint8]:
    """Images of one gray each."""
    return np.stack([np.full((size, size, channels), 10 + 20 * number, dtype=np.uint8) for number in range(num)])


def values(grid: Image.Image) -> set[int]:
    """The gray values that a grid has plenty of."""
    found, counts = np.unique(np.asarray(grid)[..., 0], return_counts=True)
    return set(found[counts > 1000].tolist()) - {255}


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_the_grid_enlarged_pixel_by_pixel(channels: int) -> None:
    grid = image_grid(colors(5, channels=channels), columns=3)
    assert values(grid) == {10, 30, 50, 70, 90}
    assert grid.width > 3 * 48
    assert grid.height > 2 * 48


def test_empty_cells_larger_images_and_captions_of_the_first_row_alone() -> None:
    large = np.full((96, 200, 3), 130, dtype=np.uint8)
    plain = image_grid([None, colors(3, 48)[0], colors(3, 48)[2], large], columns=2)
    assert {10, 50} <= values(plain)
    captioned = image_grid([None, colors(3, 48)[0], colors(3, 48)[2], large], columns=2, captions=["a", "b\nc"])
    assert captioned.width == plain.width
    assert 0 < captioned.height - plain.height < 60


@pytest.mark.parametrize("text", ["$x_1^{", "ÄÖÜ ßé", "猫", "\ud800", "a\x1b[31m", "x" * 500, "a\nb\nc", ""])
def test_any_text_can_be_a_caption_and_a_title(text: str, tmp_path: Path) -> None:
    save_image_grid(colors(2), tmp_path / "plots" / "x.png", captions=[text, text], title=text)
    with Image.open(tmp_path / "plots" / "x.png") as image:
        assert image.width < 200


def test_an_image_is_written_as_it_is(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_image(image, tmp_path / "new" / "x.png")
    with Image.open(tmp_path / "new" / "x.png") as written:
        assert np.array_equal(np.asarray(written), image)


def test_mistakes_are_counted_and_the_most_confident_come_first(tmp_path: Path) -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]], dtype=np.float32)
    labels = np.array([1, 1, 1, 0])
    assert worst_mistakes(probabilities, labels) == [0, 3, 1]
    assert worst_mistakes(probabilities, labels, num=1) == [0]
    assert confusion_counts(labels, probabilities.argmax(1), 2).tolist() == [[0, 1], [2, 1]]
    loaded: list[int] = []

    def load(rows: object) -> NDArray[np.uint8]:
        assert isinstance(rows, list)
        loaded.extend(rows)
        return colors(len(rows))

    assert plot_results(tmp_path, ["a", "b"], probabilities, labels, load) == ["confusion.png", "mistakes.png"]
    assert loaded == [0, 3, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "mistakes.png"}
    assert plot_results(tmp_path, ["a", "b"], probabilities, probabilities.argmax(1), load) == ["confusion.png"]
