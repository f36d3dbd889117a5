"""Wherever an image is moved, its boxes are moved along: each still surrounds what it surrounded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from projects.detection.annotations import AnnotatedImage
from projects.detection.augment import (
    Augmentation,
    Sample,
    clip_boxes,
    fitted_size,
    letterbox,
    random_colors,
    training_sample,
)
from projects.detection.canvas import PADDING, draw, lay_out, pack
from projects.detection.synthetic import Scene

STILL = Augmentation(mosaic=0, zoom=1, flip=False, flip_vertical=False, color=0)
ALL = Augmentation(mosaic=0.5, zoom=1.8, flip=True, flip_vertical=True, color=0.4)
CANVAS = (96, 128)


def scene(number: int, height: int = 90, width: int = 110) -> Scene:
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
    return scene_of(pixels, np.array(boxes, np.float32))


def scene_of(pixels: np.ndarray, boxes: np.ndarray) -> Scene:
    """Pixels with boxes of the classes 0, 1, …"""
    height, width = pixels.shape[:2]
    labels, ignored = np.arange(len(boxes)), np.zeros(len(boxes), dtype=bool)
    return Scene(pixels, AnnotatedImage(Path("scene"), "scene", width, height, boxes, labels, ignored))


def chosen(scenes: Sequence[Scene], augmentation: Augmentation, number: int) -> Sample:
    """A training sample of the first scene."""
    images = [each.image for each in scenes]
    return training_sample(0, images, CANVAS, augmentation, np.random.default_rng(number))


def drawn(samples: Sequence[Sample], scenes: Sequence[Scene]) -> np.ndarray:
    """The canvases of a batch in levels, [N, H, W, 3]."""
    packed = pack([each.pixels for each in scenes], [each.pixels.shape[:2] for each in scenes])
    levels = torch.arange(256.0).expand(3, -1)
    return draw(packed, lay_out(samples), CANVAS, levels).permute(0, 2, 3, 1).numpy()


def drawn_by_pillow(sample: Sample, scenes: Sequence[Scene]) -> np.ndarray:
    """The canvas of a sample in levels, [H, W, 3], a part after the other."""
    canvas = np.full((*CANVAS, 3), PADDING, dtype=np.float32)
    for row, shown, (left, top, right, bottom), (flip_x, flip_y) in sample.parts:
        image = Image.fromarray(scenes[row].pixels)
        part = np.asarray(image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=shown))
        canvas[top:bottom, left:right] = part[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return (canvas @ sample.colors[:, :3].T + sample.colors[:, 3]).clip(0, 255)


def where(pixels: np.ndarray, label: int) -> np.ndarray:
    """The bounding box of a class's color in an image."""
    others = [channel for channel in range(3) if channel != label]
    rows, columns = np.nonzero((pixels[..., label] > 150) & (pixels[..., others].max(2) < 100))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_a_whole_image_keeps_its_proportions_and_its_boxes() -> None:
    tall = scene(0, height=200)
    placed = letterbox(0, [tall.image], CANVAS)
    (pixels,) = drawn([placed], [tall])
    assert pixels.shape == (96, 128, 3)
    assert (pixels[:, 52:] == PADDING).all()
    for box, label in zip(placed.boxes, placed.labels, strict=True):
        assert np.abs(where(pixels, label) - box).max() <= 1


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
    samples, seen = [chosen([scene(3)], augmentation, number) for number in range(20)], 0
    for moved, pixels in zip(samples, drawn(samples, [scene(3)]), strict=True):
        for box, label, ignored in zip(moved.boxes, moved.labels, moved.ignored, strict=True):
            if not ignored and (box[2:] - box[:2]).min() > 4:
                assert np.abs(where(pixels, label) - box).max() <= 1.5
                seen += 1
    assert seen >= 30


def test_a_batch_is_drawn_as_pillow_draws_each_part() -> None:
    scenes = [scene(number, height=60 + 30 * number) for number in range(4)]
    samples = [chosen(scenes, ALL, number) for number in range(40)]
    assert {len(sample.parts) for sample in samples} == {1, 4}
    for sample, pixels in zip(samples, drawn(samples, scenes), strict=True):
        difference = np.abs(pixels - drawn_by_pillow(sample, scenes))
        assert difference.mean() < 0.5
        assert (difference > 3).mean() < 0.02  # at the edges of parts, which Pillow keeps from what is not shown


def test_mirrored_images_are_mirrored() -> None:
    flips: dict[str, list[tuple[float, ...]]] = {name: [] for name in ("flip", "flip_vertical")}
    for name, boxes in flips.items():
        for number in range(20):
            augmentation = STILL._replace(flip=name == "flip", flip_vertical=name == "flip_vertical")
            moved = chosen([scene(3)], augmentation, number)
            boxes.append(tuple(moved.boxes[0].round(1)))
    assert all(len(set(boxes)) >= 2 for boxes in flips.values())
    assert len({box[0] for box in flips["flip"]}) >= 2
    assert len({box[1] for box in flips["flip_vertical"]}) >= 2


def test_a_mosaic_has_boxes_of_four_images_each_in_its_quarter() -> None:
    scenes = [scene(number) for number in range(9)]
    samples = [chosen(scenes, STILL._replace(mosaic=1.0, zoom=1.3), number) for number in range(12)]
    checked = 0
    for moved, pixels in zip(samples, drawn(samples, scenes), strict=True):
        rows = [part.row for part in moved.parts]
        assert len(rows) == 4
        assert rows[0] == 0
        assert set(rows) <= set(range(9))
        assert len(moved.boxes) == len(moved.labels) == len(moved.ignored)
        assert (moved.boxes[:, :2] >= 0).all()
        assert (moved.boxes[:, 2:] <= np.array([CANVAS[1], CANVAS[0]])).all()
        for box, label, ignored in zip(moved.boxes, moved.labels, moved.ignored, strict=True):
            x1, y1, x2, y2 = (round(float(edge)) for edge in box)
            inside = pixels[y1:y2, x1:x2].reshape(-1, 3)
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
    empty = [scene_of(scene(number).pixels, np.zeros((0, 4), np.float32)) for number in range(3)]
    for number in range(10):
        assert chosen(empty, ALL, number).boxes.shape == (0, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (7, 3)])
def test_the_oddest_images_are_laid_without_an_error(size: tuple[int, int]) -> None:
    thin = scene_of(np.full((*size, 3), 9, np.uint8), np.array([[0, 0, size[1], size[0]]], np.float32))
    samples = [chosen([thin], ALL._replace(mosaic=1, zoom=3, color=0), number) for number in range(20)]
    for moved, pixels in zip(samples, drawn(samples, [thin]), strict=True):
        assert (moved.boxes[:, 2:] > moved.boxes[:, :2]).all()
        expected = np.full((*CANVAS, 3), PADDING)
        for part in moved.parts:
            left, top, right, bottom = part.rectangle
            assert 0 <= left < right <= CANVAS[1]
            assert 0 <= top < bottom <= CANVAS[0]
            expected[top:bottom, left:right] = 9
        assert np.array_equal(pixels, expected)


def test_colors_move_and_without_strength_they_do_not() -> None:
    assert np.array_equal(random_colors(0.0, np.random.default_rng(0)), np.eye(3, 4))
    still = [chosen([scene(0, 60)], STILL, 0)] * 8
    changed = [each._replace(colors=random_colors(0.4, np.random.default_rng(n))) for n, each in enumerate(still)]
    before, after = drawn(still, [scene(0, 60)]), drawn(changed, [scene(0, 60)])
    assert len({each.tobytes() for each in after}) == 8
    assert 3 < np.abs(after - before).mean() < 60
