"""Generated images are a function of seed, classes, domain and number; the two domains differ."""

import numpy as np
import pytest
import torch

from projects.transfer.synthetic import SOURCE_CLASSES, TARGET_CLASSES, draw_images


def test_shapes_types_and_classes() -> None:
    images, labels = draw_images(7, 0, 20, TARGET_CLASSES, "evening")
    assert images.shape == (7, 20, 20, 3)
    assert images.dtype == np.uint8
    assert labels.shape == (7,)
    assert labels.dtype == np.int64
    assert not set(SOURCE_CLASSES) & set(TARGET_CLASSES)


def test_the_same_seed_gives_the_same_images_and_leaves_global_random_states_alone() -> None:
    before = repr(np.random.get_state()), torch.get_rng_state().tolist()
    first, labels = draw_images(70, 5, 16, SOURCE_CLASSES, "day")
    again, labels_again = draw_images(70, 5, 16, SOURCE_CLASSES, "day")
    assert np.array_equal(first, again)
    assert np.array_equal(labels, labels_again)
    assert (repr(np.random.get_state()), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("num", [1, 59, 60, 61])
def test_an_image_does_not_depend_on_how_many_are_drawn(num: int) -> None:
    images, labels = draw_images(num, 1, 16, TARGET_CLASSES, "day")
    more_images, more_labels = draw_images(130, 1, 16, TARGET_CLASSES, "day")
    assert np.array_equal(images, more_images[:num])
    assert np.array_equal(labels, more_labels[:num])


def test_seeds_classes_and_domains_have_images_of_their_own() -> None:
    kinds = [(0, SOURCE_CLASSES, "day"), (0, TARGET_CLASSES, "day"), (0, TARGET_CLASSES, "evening")]
    kinds += [(1, TARGET_CLASSES, "evening")]
    drawn = [draw_images(60, seed, 16, classes, domain)[0] for seed, classes, domain in kinds]  # type: ignore[arg-type]
    assert len({image.tobytes() for images in drawn for image in images}) == 240


def test_classes_are_nearly_equally_often() -> None:
    counts = np.bincount(draw_images(600, 2, 8, SOURCE_CLASSES, "day")[1])
    assert counts.max() - counts.min() <= 10


def test_the_evening_is_dark_and_bluish() -> None:
    day = draw_images(60, 0, 16, TARGET_CLASSES, "day")[0].mean((0, 1, 2))
    evening = draw_images(60, 0, 16, TARGET_CLASSES, "evening")[0].mean((0, 1, 2))
    assert (evening < 0.8 * day).all()
    assert evening.argmax() == 2


@pytest.mark.parametrize(("arguments", "named"), [((0, 0, 16), "num"), ((1, -1, 16), "seed"), ((1, 0, 7), "size")])
def test_an_argument_out_of_range_is_named(arguments: tuple[int, int, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} is"):
        draw_images(*arguments, TARGET_CLASSES, "day")
