"""Drawn pictures are a function of seed, classes, domain and number, balanced, and of two kinds one can tell apart."""

import numpy as np
import pytest
import torch

from projects.transfer.synthetic import SOURCE_CLASSES, TARGET_CLASSES, draw_pictures, outline


def test_shapes_types_and_classes() -> None:
    pictures, labels = draw_pictures(7, 0, 20, TARGET_CLASSES, "night")
    assert (pictures.shape, pictures.dtype) == ((7, 20, 20, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((7,), np.int64)
    assert not set(SOURCE_CLASSES) & set(TARGET_CLASSES)
    assert {outline(name)[0] for name in SOURCE_CLASSES} == {outline(name)[0] for name in TARGET_CLASSES}


def test_the_same_seed_gives_the_same_pictures_and_leaves_global_random_states_alone() -> None:
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first, again = (draw_pictures(70, 5, 16, SOURCE_CLASSES, "day") for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("num", [1, 59, 60, 61])
def test_a_picture_does_not_depend_on_how_many_are_drawn(num: int) -> None:
    pictures, labels = draw_pictures(num, 1, 16, TARGET_CLASSES, "day")
    more_pictures, more_labels = draw_pictures(130, 1, 16, TARGET_CLASSES, "day")
    assert np.array_equal(pictures, more_pictures[:num])
    assert np.array_equal(labels, more_labels[:num])


def test_seeds_classes_and_domains_have_pictures_of_their_own() -> None:
    kinds = [(0, SOURCE_CLASSES, "day"), (0, TARGET_CLASSES, "day"), (0, TARGET_CLASSES, "night")]
    kinds += [(1, TARGET_CLASSES, "night")]
    drawn = [draw_pictures(60, seed, 16, classes, domain)[0] for seed, classes, domain in kinds]  # type: ignore[arg-type]
    assert len({picture.tobytes() for pictures in drawn for picture in pictures}) == 240


def test_classes_are_nearly_equally_often() -> None:
    counts = np.bincount(draw_pictures(600, 2, 8, SOURCE_CLASSES, "day")[1])
    assert counts.max() - counts.min() <= 10


def test_night_is_dark_and_bluish() -> None:
    day = draw_pictures(60, 0, 16, TARGET_CLASSES, "day")[0].mean((0, 1, 2))
    night = draw_pictures(60, 0, 16, TARGET_CLASSES, "night")[0].mean((0, 1, 2))
    assert (night < 0.7 * day).all()
    assert night.argmax() == 2


@pytest.mark.parametrize(("arguments", "named"), [((0, 0, 16), "num"), ((1, -1, 16), "seed"), ((1, 0, 7), "size")])
def test_an_argument_out_of_range_is_named(arguments: tuple[int, int, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} is"):
        draw_pictures(*arguments, TARGET_CLASSES, "day")
