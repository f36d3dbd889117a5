"""Wherever an image is moved, its boxes are moved along: each still surrounds what it surrounded."""

import numpy as np
import pytest

from projects.detection.augment import (
    PADDING,
    Augmentation,
    Sample,
    change_colors,
    clip_boxes,
    fitted_size,
    letterbox,
    place,
    training_sample,
)

STILL = Augmentation(mosaic=0, zoom=1, flip=False, flip_vertical=False, color=0)
CANVAS = (96, 128)


def scene(number: int, height: int = 90, width: int = 110) -> Sample:
    """A gray image with a few rectangles, each of a color of its own."""
    random = np.random.default_rng(number)
    pixels = np.full((height, width, 3), 60, dtype=np.uint8)
    boxes = []
    for label in range(3):
        x, y = 4 + 36 * label, int(random.integers(0, height - 30))
        w, h = int(random.integers(14, 30)), int(random.integers(14, 30))
        pixels[y : y + h, x : x + w] = 0
        pixels[y : y + h, x : x + w, label] = 250
        boxes.append((x, y, min(x + w, width), y + h))
    return Sample(pixels, np.array(boxes, np.float32), np.arange(3), np.zeros(3, dtype=bool))


def where(pixels: np.ndarray, label: int) -> np.ndarray:
    """The bounding box of a class's color in an image."""
    others = [channel for channel in range(3) if channel != label]
    rows, columns = np.nonzero((pixels[..., label] > 150) & (pixels[..., others].max(2) < 100))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_a_whole_image_keeps_its_proportions_and_its_boxes() -> None:
    placed = letterbox(scene(0, height=200), (96, 128))
    assert placed.pixels.shape == (96, 128, 3)
    assert (placed.pixels[:, 52:] == PADDING).all()
    for box, label in zip(placed.boxes, placed.labels, strict=True):
        assert np.abs(where(placed.pixels, label) - box).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(480, 640), (1, 1), (207, 299), (2000, 3), (96, 128), (3, 2000)])
def test_a_fitted_image_fills_one_side_and_never_exceeds_the_other(height: int, width: int) -> None:
    fit = fitted_size(height, width, CANVAS)
    assert fit[0] == CANVAS[0] or fit[1] == CANVAS[1]
    assert 1 <= fit[0] <= CANVAS[0]
    assert 1 <= fit[1] <= CANVAS[1]
    assert fitted_size(*fit, CANVAS) == fit


@pytest.mark.parametrize(
    "augmentation",
    [
        STILL,
        STILL._replace(zoom=1.8),
        STILL._replace(flip=True),
        STILL._replace(flip_vertical=True),
        STILL._replace(zoom=1.8, flip=True, flip_vertical=True),
    ],
    ids=["still", "zoom", "flip", "flip_vertical", "all"],
)
def test_boxes_are_moved_with_what_is_in_them(augmentation: Augmentation) -> None:
    seen = 0
    for number in range(20):
        random = np.random.default_rng(number)
        moved = training_sample(0, 1, lambda _: scene(3), CANVAS, augmentation, random)
        assert moved.pixels.shape == (*CANVAS, 3)
        for box, label, ignored in zip(moved.boxes, moved.labels, moved.ignored, strict=True):
            if not ignored and (box[2:] - box[:2]).min() > 4:
                assert np.abs(where(moved.pixels, label) - box).max() <= 1.5
                seen += 1
    assert seen >= 30


def test_mirrored_images_are_mirrored() -> None:
    flips: dict[str, list[tuple[float, ...]]] = {name: [] for name in ("flip", "flip_vertical")}
    for name, boxes in flips.items():
        for number in range(20):
            augmentation = STILL._replace(flip=name == "flip", flip_vertical=name == "flip_vertical")
            moved = training_sample(0, 1, lambda _: scene(3), CANVAS, augmentation, np.random.default_rng(number))
            boxes.append(tuple(moved.boxes[0].round(1)))
    assert all(len(set(boxes)) >= 2 for boxes in flips.values())
    assert len({box[0] for box in flips["flip"]}) >= 2
    assert len({box[1] for box in flips["flip_vertical"]}) >= 2


def test_a_mosaic_has_boxes_of_four_images_each_in_its_quarter() -> None:
    augmentation = STILL._replace(mosaic=1.0, zoom=1.3)
    asked: list[int] = []

    def fetch(row: int) -> Sample:
        asked.append(row)
        return scene(row)

    checked = 0
    for number in range(12):
        asked.clear()
        moved = training_sample(5, 9, fetch, CANVAS, augmentation, np.random.default_rng(number))
        assert len(asked) == 4
        assert asked[0] == 5
        assert set(asked) <= set(range(9))
        assert len(moved.boxes) == len(moved.labels) == len(moved.ignored)
        assert (moved.boxes[:, :2] >= 0).all()
        assert (moved.boxes[:, 2:] <= np.array([CANVAS[1], CANVAS[0]])).all()
        for box, label, ignored in zip(moved.boxes, moved.labels, moved.ignored, strict=True):
            x1, y1, x2, y2 = (round(float(edge)) for edge in box)
            inside = moved.pixels[y1:y2, x1:x2].reshape(-1, 3)
            if not ignored and len(inside) > 60:
                share = ((inside[:, label] > 150) & (np.delete(inside, label, 1).max(1) < 100)).mean()
                assert share > 0.75
                checked += 1
    assert checked > 30


def test_what_is_cut_away_is_left_out_and_what_is_mostly_cut_is_not_counted() -> None:
    boxes = np.array([[-9, 0, 1, 10], [-30, 0, -20, 10], [-6, 0, 4, 10], [0, 0, 10, 10], [5, 5, 6, 9]], np.float32)
    cut, kept, hidden = clip_boxes(boxes, 20, 20)
    assert kept.tolist() == [False, False, True, True, False]
    assert hidden[kept].tolist() == [False, False]
    assert cut[2].tolist() == [0, 0, 4, 10]
    cut, kept, hidden = clip_boxes(np.array([[-16, 0, 4, 10]], np.float32), 20, 20)
    assert (kept.tolist(), hidden.tolist()) == ([True], [True])


def test_an_image_without_boxes_stays_one() -> None:
    empty = scene(0)._replace(boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, int), ignored=np.zeros(0, bool))
    augmentation = Augmentation(mosaic=0.5, zoom=2, flip=True, flip_vertical=True, color=0.3)
    for number in range(10):
        moved = training_sample(0, 3, lambda _: empty, CANVAS, augmentation, np.random.default_rng(number))
        assert moved.boxes.shape == (0, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (7, 3)])
def test_the_oddest_images_are_laid_without_an_error(size: tuple[int, int]) -> None:
    thin = Sample(
        np.full((*size, 3), 9, np.uint8),
        np.array([[0, 0, size[1], size[0]]], np.float32),
        np.zeros(1, np.int64),
        np.zeros(1, bool),
    )
    augmentation = Augmentation(mosaic=1, zoom=3, flip=True, flip_vertical=True, color=0.5)
    for number in range(20):
        random = np.random.default_rng(number)
        moved = training_sample(0, 1, lambda _: thin, CANVAS, augmentation, random)
        assert (moved.boxes[:, 2:] > moved.boxes[:, :2]).all()
        pixels = np.zeros((*CANVAS, 3), np.uint8)
        place(pixels, (10, 10, 40, 50), thin, CANVAS, augmentation, random)
        assert not pixels[:10].any()
        assert not pixels[:, 50:].any()


def test_colors_move_and_without_strength_they_do_not() -> None:
    pixels = scene(0).pixels
    assert np.array_equal(change_colors(pixels, 0.0, np.random.default_rng(0)), pixels)
    moved = [change_colors(pixels, 0.4, np.random.default_rng(number)) for number in range(8)]
    assert len({each.tobytes() for each in moved}) == 8
    assert all(each.dtype == np.uint8 for each in moved)
    difference = np.mean([np.abs(each.astype(int) - pixels).mean() for each in moved])
    assert 3 < difference < 60


def test_equal_random_numbers_give_equal_images() -> None:
    augmentation = Augmentation(mosaic=0.5, zoom=1.5, flip=True, flip_vertical=True, color=0.3)
    for number in range(6):
        a, b = (
            training_sample(2, 5, scene, CANVAS, augmentation, np.random.Generator(np.random.Philox(key=number)))
            for _ in range(2)
        )
        for name in Sample._fields:
            assert np.array_equal(getattr(a, name), getattr(b, name))
