"""Generated images are a function of seed and number, balanced, and too hard for a linear model."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from projects.cifar10.outlines import CLASSES
from projects.cifar10.synthetic import draw_images


def test_shapes_types_and_classes() -> None:
    images, labels = draw_images(7, seed=0, size=20)
    assert images.shape == (7, 20, 20, 3)
    assert images.dtype == np.uint8
    assert labels.shape == (7,)
    assert labels.dtype == np.int64
    assert len(CLASSES) == len(set(CLASSES)) == 10


def test_the_same_seed_gives_the_same_images_and_leaves_global_random_states_alone() -> None:
    before = str(np.random.get_state()), torch.get_rng_state().tolist()
    first, again = draw_images(120, seed=5, size=16), draw_images(120, seed=5, size=16)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (str(np.random.get_state()), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("num", [1, 99, 100, 101])
def test_an_image_does_not_depend_on_how_many_are_drawn(num: int) -> None:
    images, labels = draw_images(num, seed=1, size=16)
    more_images, more_labels = draw_images(210, seed=1, size=16)
    assert np.array_equal(images, more_images[:num])
    assert np.array_equal(labels, more_labels[:num])


def test_another_seed_gives_other_images_in_another_order() -> None:
    images, labels = draw_images(100, seed=1, size=16)
    other_images, other_labels = draw_images(100, seed=2, size=16)
    assert not np.array_equal(labels, other_labels)
    assert all(not np.array_equal(a, b) for a, b in zip(images, other_images, strict=True))


def test_no_image_comes_twice() -> None:
    images, _ = draw_images(300, seed=0, size=16)
    assert len({image.tobytes() for image in images}) == 300


def test_every_ten_in_a_row_hold_each_class_once() -> None:
    _, labels = draw_images(230, seed=9, size=8)
    assert all(sorted(ten) == list(range(10)) for ten in labels.reshape(-1, 10).tolist())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 0), "num"),
        ((-1, 0), "num"),
        ((1, -1), "seed"),
        ((1, 2**63), "seed"),
        ((1, 0, 7), "size"),
        ((1, 0, 257), "size"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments: tuple[int, ...], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} is {arguments[('num', 'seed', 'size').index(named)]}, allowed"):
        draw_images(*arguments)


def test_a_linear_model_stays_under_35_percent() -> None:
    pixels, labels = draw_images(1_500, seed=0)
    images = torch.from_numpy(pixels).flatten(1).float() / 255
    images = (images - images[:1_000].mean(0)) / images[:1_000].std(0)
    targets = torch.from_numpy(labels)
    weights = torch.zeros(images.shape[1], 10, requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=1e-3, weight_decay=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(images[:1_000] @ weights, targets[:1_000]).backward()
        optimizer.step()
    right = (images @ weights).argmax(1) == targets
    assert right[:1_000].float().mean() > 0.5  # it did learn
    assert right[1_000:].float().mean() < 0.35
