"""The detector's data: an annotated folder or generated scenes, split into training, validation and test images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core import randomness
from core.errors import UserError
from core.vision.decoding import decode
from projects.detection.annotations import AnnotatedImage
from projects.detection.config import LARGEST_OWN_SIZE, STRIDE, Config
from projects.detection.data_notes import class_notes, copy_notes, small_box_notes
from projects.detection.datasets import describe, read_folder
from projects.detection.synthetic import CLASSES, draw_scenes

_NUM_FOR_STATISTICS = 200


@dataclass(frozen=True)
class AnnotatedSet:
    """Images of one split. pixels: the same images decoded, uint8 [H, W, 3], where they are held in memory."""

    images: Sequence[AnnotatedImage]
    pixels: Sequence[NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int]) -> "AnnotatedSet":
        """The set of some of the images."""
        pixels = None if self.pixels is None else [self.pixels[row] for row in rows]
        return AnnotatedSet([self.images[row] for row in rows], pixels)

    def decode(self, row: int) -> NDArray[np.uint8]:
        """An image at its own size, uint8 [H, W, 3], or at the size that it is held at."""
        return self.pixels[row] if self.pixels is not None else decode(self.images[row].path)


@dataclass(frozen=True)
class Data:
    """The splits of a dataset and what was measured on it.

    canvas: (height, width) in pixels that networks see. mean, std: per channel of the training images, of values in
    [0, 1]. sha256: of all boxes and image files, before splitting. notes: what a user should know, a line each.
    """

    classes: Sequence[str]
    train: AnnotatedSet
    val: AnnotatedSet
    test: AnnotatedSet | None
    canvas: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    notes: Sequence[str] = ()


def load_data(config: Config) -> Data:
    """The data that the settings name. Raises UserError, naming file and reason."""
    notes: list[str] = []
    if config.data == "synthetic":
        classes, splits = CLASSES, _synthetic(config)
    else:
        annotations = read_folder(Path(config.data), config.on_fault)
        classes, notes = tuple(annotations.classes), describe(annotations)
        splits = {name: AnnotatedSet(images) for name, images in annotations.splits.items()}
    digest = _sha256_of(splits, classes)
    train = splits.get("train") or splits["all"]
    val = splits.get("val")
    if val is None or not len(val):
        train, val = _hold_out(train, config)
    if config.num_train is not None:
        train = _some(train, config.num_train, config.seed)
    for split, purpose in ((train, "train on"), (val, "validate on")):
        if not any((~image.ignored).any() for image in split.images):
            where = f"--data {config.data} ({len(split)} images)"
            raise UserError(f"no boxes to {purpose}", where, "annotate more, or try another --val-fraction or --seed")
    canvas = canvas_of(train.images, config.image_size)
    mean, std = _statistics(train)
    test = splits.get("test") or None
    named = {"train": train.images, "val": val.images, **({"test": test.images} if test else {})}
    if config.data != "synthetic":
        notes += [*class_notes(named, classes), *copy_notes(named), *small_box_notes(train.images, canvas)]
    return Data(classes, train, val, test, canvas, mean, std, digest, notes)


def _hold_out(images: AnnotatedSet, config: Config) -> tuple[AnnotatedSet, AnnotatedSet]:
    """The images without a random share, and that share, for validation."""
    order = randomness.permutation(config.seed, 0, len(images)).tolist()
    num_val = max(1, round(config.val_fraction * len(images)))
    return images.take(sorted(order[num_val:])), images.take(sorted(order[:num_val]))


def _some(images: AnnotatedSet, num: int, seed: int) -> AnnotatedSet:
    """This many of the images, drawn by the seed. Raises UserError where there are fewer."""
    if num > len(images):
        raise UserError("fewer training images", f"--num-train {num}, of {len(images):,}", "give a smaller number")
    return images.take(sorted(randomness.permutation(seed, 1, len(images)).tolist()[:num]))


def _statistics(train: AnnotatedSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of values in [0, 1], from some pixels of some images."""
    step = max(1, len(train) // _NUM_FOR_STATISTICS)
    pixels = [train.decode(row)[::4, ::4].reshape(-1, 3) for row in range(0, len(train), step)]
    sample = np.concatenate(pixels) / 255.0
    mean = tuple(round(float(value), 4) for value in sample.mean(axis=0))
    return mean, tuple(round(max(float(value), 1e-3), 4) for value in sample.std(axis=0))


def _sha256_of(splits: Mapping[str, AnnotatedSet], classes: Sequence[str]) -> str:
    """The SHA-256 of classes, names, boxes and image files, so that a run is not continued on other data."""
    digest = hashlib.sha256(repr(list(classes)).encode())
    for name, split in sorted(splits.items()):
        digest.update(f"{name}: {len(split)} images".encode())
        for image in split.images:
            digest.update(f"{image.name}\n{image.sha256}\n{image.width}×{image.height}".encode())
            for array in (image.boxes, image.labels, image.ignored):
                digest.update(array.tobytes())
    return digest.hexdigest()


def canvas_of(images: Sequence[AnnotatedImage], longer_side: int | None) -> tuple[int, int]:
    """(height, width) of the canvas in pixels: of the images' median proportions, both multiples of 32."""
    if longer_side is None:
        median = float(np.median([max(image.height, image.width) for image in images]))
        longer_side = min(LARGEST_OWN_SIZE, max(2 * STRIDE, round(median)))
    ratio = float(np.median([image.height / image.width for image in images]))
    height, width = longer_side * min(1.0, ratio), longer_side * min(1.0, 1 / ratio)
    return max(1, -int(-height // STRIDE)) * STRIDE, max(1, -int(-width // STRIDE)) * STRIDE


def _synthetic(config: Config) -> dict[str, AnnotatedSet]:
    """Generated scenes: `num_synthetic` for training, a sixth as many each for validation and test."""
    num_other = config.num_synthetic // 6
    scenes = draw_scenes(config.num_synthetic + 2 * num_other, config.seed)
    rows = {"test": (0, num_other), "val": (num_other, 2 * num_other), "train": (2 * num_other, len(scenes))}
    images, pixels = [scene.image for scene in scenes], [scene.pixels for scene in scenes]
    return {name: AnnotatedSet(images[a:b], pixels[a:b]) for name, (a, b) in rows.items()}
