"""Images stream through an infer program: few are held at a time, those of one size share a batch, order is kept."""

import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.vision.inputs import find_inputs, in_batches
from tests.refusals import assert_refused


def numbered(sizes: Sequence[tuple[int, int]], alive: list[int]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Images of the given heights and widths, all pixels with the image's number; counts in `alive` those in memory."""
    for number, (height, width) in enumerate(sizes):
        image = np.full((height, width, 3), number % 256, dtype=np.uint8)
        alive[0] += 1
        alive[1] = max(alive)
        weakref.finalize(image, lambda: alive.__setitem__(0, alive[0] - 1))
        yield number, image
        del image


def test_few_images_are_held_at_a_time_whatever_their_number_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    random, alive = np.random.default_rng(0), [0, 0]
    sizes = [(int(k), 4) for k in random.integers(1, 4, 2_000)]
    keys = [key for key, _, _ in in_batches(numbered(sizes, alive), list, 8)]
    assert keys == list(range(2_000))
    assert 8 <= alive[1] <= 4 * 8 + 1
    monkeypatch.setattr("core.vision.inputs._WINDOW_BYTES", 100_000)
    large, alive = [(100, 100)] * 14, [0, 0]
    assert len([key for key, _, _ in in_batches(numbered(large, alive), list, 64)]) == 14
    assert alive[1] <= 5  # of 30,000 bytes each


def test_images_of_one_size_share_a_batch_without_being_neighbors_and_keep_their_order() -> None:
    batches: list[int] = []

    def run(images: NDArray[np.uint8]) -> list[int]:
        batches.append(len(images))
        return [int(image[0, 0, 0]) for image in images]

    sizes = [(2, 3), (3, 2)] * 8
    results = list(in_batches(numbered(sizes, [0, 0]), run, 4))
    assert [(key, result) for key, _, result in results] == [(k, k) for k in range(16)]
    assert [pixels.shape[:2] for _, pixels, _ in results] == sizes
    assert batches == [4] * 4


def test_words_are_images_folders_patterns_videos_and_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/2.png", "a/deep/3.png", "[b].png", "clip.MP4", "7"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    inputs = find_inputs(["a/*.png", "a/**/3.png", "[b].png", "7", "clip.MP4", "3", "/dev/video12"])
    assert [str(path) for path, _ in inputs.images] == ["a/1.png", "a/2.png", "a/deep/3.png", "[b].png", "7"]
    assert [str(path) for path in inputs.videos] == ["clip.MP4", "3", "/dev/video12"]
    assert len(find_inputs(["a"]).images) == 3
    for words, named in ((["x/*.png"], "x/*.png"), (["gone.mp4"], "gone.mp4"), (["gone.png"], "gone.png")):
        assert_refused(partial(find_inputs, words), named, tmp_path)
