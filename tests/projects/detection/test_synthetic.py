"""Generated scenes are a function of seed and number, and their boxes surround what is to be seen."""

import numpy as np
import pytest
import torch

from projects.detection.synthetic import CLASSES, LONGER_SIDE, SHORTER_SIDE, draw_scene, draw_scenes, visible_objects

SCENES = 60


def test_images_have_boxes_inside_them_and_sizes_of_many_kinds() -> None:
    scenes = draw_scenes(SCENES, seed=0)
    for pixels, image in scenes:
        assert pixels.dtype == np.uint8
        assert pixels.shape == (image.height, image.width, 3)
        assert SHORTER_SIDE[0] <= min(pixels.shape[:2])
        assert max(pixels.shape[:2]) < LONGER_SIDE[1]
        assert len(image.boxes) == len(image.labels) == len(image.ignored)
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= 0).all()
        assert (image.boxes[:, 2:] <= [image.width, image.height]).all()
    assert len({pixels.shape for pixels, _ in scenes}) > 30
    numbers = [len(image.boxes) for _, image in scenes]
    assert min(numbers) == 0
    assert max(numbers) >= 5


def test_every_class_comes_and_some_shapes_are_mostly_hidden() -> None:
    images = [scene.image for scene in draw_scenes(SCENES, seed=1)]
    labels = np.concatenate([image.labels for image in images])
    assert np.bincount(labels, minlength=len(CLASSES)).min() >= 10
    hidden = np.concatenate([image.ignored for image in images])
    assert 0 < hidden.mean() < 0.2


def test_the_same_seed_gives_the_same_scenes_and_leaves_global_random_states_alone() -> None:
    before = str(np.random.get_state()), torch.get_rng_state().tolist()
    first, again = draw_scenes(5, seed=5), draw_scenes(7, seed=5)
    for one, other in zip(first, again, strict=False):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.image.boxes, other.image.boxes)
    assert (str(np.random.get_state()), torch.get_rng_state().tolist()) == before


def test_another_seed_gives_other_scenes() -> None:
    assert draw_scene(1, 0).pixels.tobytes() != draw_scene(2, 0).pixels.tobytes()


def test_a_box_surrounds_what_is_to_be_seen_of_a_shape() -> None:
    owners = np.zeros((40, 60), np.uint8)
    owners[10:30, 8:28] = 1
    owners[10:30, 18:50] = 2  # it covers the right half of the first
    result = visible_objects(owners, [400, 640, 90], [3, 1, 2])
    assert result == [((4, 5, 9, 15), 3, False), ((9, 5, 25, 15), 1, False)]
    owners[10:30, 12:18] = 2
    assert visible_objects(owners, [400, 760], [3, 1])[0] == ((4, 5, 6, 15), 3, True)


@pytest.mark.parametrize(("num", "seed", "named"), [(0, 0, "num is 0"), (-1, 0, "num is -1"), (1, -1, "seed is -1")])
def test_an_argument_out_of_range_is_named(num: int, seed: int, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}, allowed"):
        draw_scenes(num, seed)
