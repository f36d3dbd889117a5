"""The detector's pictures: an annotated folder or a generated set, split, and served in batches.

A picture is decoded once and held at the size that training can use, or, where a set is too large for that, decoded
each time by the loader's workers; both give the same batches to the bit. Every random choice belongs to (seed, epoch,
sample), also that of the three other pictures of a mosaic.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import images, randomness
from core.accelerator import Accelerator
from core.data import Order, StreamLoader
from core.errors import UserError
from cuda_ext import lookup_table, normalize
from projects.detection.annotations import Annotations, Picture, counts, read_folder
from projects.detection.augment import Moves, Sample, fitted, letterbox, resized, training_sample
from projects.detection.config import LARGEST_OWN_SIZE, STRIDE, Config

Batch = tuple[Tensor, list[dict[str, Tensor]]]  # images [N, 3, H, W], normalized; a target for each (model.py)
RESIDENT_BYTES = 4 << 30
NUM_FOR_STATISTICS = 200


@dataclass(frozen=True)
class Split:
    """Pictures of one purpose. pixels: the same pictures decoded, where they are held in memory."""

    pictures: Sequence[Picture]
    pixels: Sequence[NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: Sequence[int]) -> "Split":
        """A part of a split."""
        pixels = None if self.pixels is None else [self.pixels[row] for row in rows]
        return Split([self.pictures[row] for row in rows], pixels)

    def decode(self, row: int) -> NDArray[np.uint8]:
        """A picture as it is on the disk (or was drawn), uint8 [H, W, 3]."""
        return self.pixels[row] if self.pixels is not None else images.decode(self.pictures[row].path)


@dataclass(frozen=True)
class Data:
    """The three splits; the canvas (height, width) that networks see; mean and standard deviation per channel of the
    training pictures, of values in [0, 1]; a hash of all annotations; what a user should know."""

    classes: Sequence[str]
    train: Split
    val: Split
    test: Split | None
    canvas: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    notes: Sequence[str] = ()


def load_data(config: Config) -> Data:
    """The data that the settings name. Raises UserError, naming file and reason."""
    notes: list[str] = []
    if config.data == "synthetic":
        classes, splits = synthetic(config)
    else:
        found = read_folder(Path(config.data), config.on_fault)
        classes, notes = found.classes, describe(found)
        splits = {name: Split(pictures) for name, pictures in found.splits.items()}
    train = splits.get("train") or splits["all"]
    val = splits.get("val")
    if val is None or not len(val):
        order = randomness.permutation(config.seed, 0, len(train)).tolist()
        num_val = max(1, round(config.val_fraction * len(train)))
        val, train = train.take(sorted(order[:num_val])), train.take(sorted(order[num_val:]))
    for split, purpose in ((train, "train on"), (val, "validate on")):
        if not any((~picture.uncounted).any() for picture in split.pictures):
            where = f"--data {config.data} ({len(split)} pictures)"
            raise UserError(f"no boxes to {purpose}", where, "annotate more, or try another --val-fraction or --seed")
    canvas = canvas_of(train.pictures, config.image_size)
    step = max(1, len(train) // NUM_FOR_STATISTICS)
    sample = np.concatenate([train.decode(row)[::4, ::4].reshape(-1, 3) for row in range(0, len(train), step)]) / 255.0
    mean = tuple(round(float(value), 4) for value in sample.mean(axis=0))
    std = tuple(round(max(float(value), 1e-3), 4) for value in sample.std(axis=0))
    test = splits.get("test")
    digest = hash_of([train, val, *([test] if test else [])])
    return Data(classes, train, val, test or None, canvas, mean, std, digest, notes)


def hash_of(splits: Sequence[Split]) -> str:
    """The SHA-256 of all names and boxes: a run is not to be continued on others."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(b"%d pictures" % len(split))
        for picture in split.pictures:
            digest.update(picture.name.encode())
            for array in (picture.boxes, picture.labels, picture.uncounted):
                digest.update(array.tobytes())
    return digest.hexdigest()


def describe(found: Annotations) -> list[str]:
    """What a user should know of a folder: the splits, how it was read, what was left out."""
    lines = [f"{split:<6} {line}" for split, line in counts(found).items()]
    return [*lines, *found.notes, *(f"left out: {fault}" for fault in found.faults)]


def canvas_of(pictures: Sequence[Picture], longer_side: int | None) -> tuple[int, int]:
    """Height and width of the canvas: the middle proportions of the pictures, sides rounded up to multiples of 32."""
    if longer_side is None:
        middle = float(np.median([max(picture.height, picture.width) for picture in pictures]))
        longer_side = min(LARGEST_OWN_SIZE, max(2 * STRIDE, round(middle)))
    ratio = float(np.median([picture.height / picture.width for picture in pictures]))
    height, width = longer_side * min(1.0, ratio), longer_side * min(1.0, 1 / ratio)
    return max(1, -int(-height // STRIDE)) * STRIDE, max(1, -int(-width // STRIDE)) * STRIDE


def hold(split: Split, limit: tuple[int, int], config: Config) -> Split:
    """The split with its pictures in memory, no larger than the limit (height, width), if the settings want that."""
    num_bytes = len(split) * limit[0] * limit[1] * 3
    if config.resident == "no" or (config.resident == "auto" and num_bytes > RESIDENT_BYTES):
        return split
    with ThreadPoolExecutor(max(2, config.workers)) as pool:  # Pillow decodes without holding the interpreter's lock
        return replace(split, pixels=list(pool.map(lambda row: reduced(split.decode(row), limit), range(len(split)))))


def reduced(pixels: NDArray[np.uint8], limit: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture, made smaller where it exceeds the limit."""
    size = fitted(pixels.shape[0], pixels.shape[1], limit)
    return resized(pixels, size) if size[0] < pixels.shape[0] else pixels


class Samples:
    """A split as a source for the loader: each sample once, as it is, or `repeats` times and moved at random."""

    def __init__(self, split: Split, canvas: tuple[int, int], moves: Moves | None = None, repeats: int = 1) -> None:
        self.split, self.canvas, self.moves, self.repeats = split, canvas, moves, repeats
        # Pictures are stored as large as the largest zoom needs them, so training and workers see the same pixels.
        zoom = 1.0 if moves is None else moves.zoom
        self.limit = (round(canvas[0] * zoom), round(canvas[1] * zoom))

    def __len__(self) -> int:
        return len(self.split) * self.repeats

    def load(self, index: int, random: np.random.Generator) -> tuple[Sample, int]:
        """The sample and the row of its picture."""
        row = index % len(self.split)
        if self.moves is None:
            return letterbox(self.fetch(row), self.canvas), row
        return training_sample(row, len(self.split), self.fetch, self.canvas, self.moves, random), row

    def fetch(self, row: int) -> Sample:
        """A stored picture with its boxes in its own pixels."""
        picture, pixels = self.split.pictures[row], reduced(self.split.decode(row), self.limit)
        scale = [pixels.shape[1] / picture.width, pixels.shape[0] / picture.height] * 2
        boxes = picture.boxes * np.array(scale, dtype=np.float32)
        return Sample(pixels, boxes, picture.labels, picture.uncounted)

    def name(self, index: int) -> str:
        """The picture's path."""
        return str(self.split.pictures[index % len(self.split)].path)


class TrainingLoader:
    """Shuffled batches of pictures moved at random; in the last epochs without mosaics."""

    def __init__(self, data: Data, config: Config, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)
        moves = Moves(config.mosaic, config.zoom, config.flip, config.flip_vertical, config.color)
        source = Samples(data.train, data.canvas, moves, config.repeats)
        self.early = Samples(hold(data.train, source.limit, config), data.canvas, moves, config.repeats)
        self.late = Samples(self.early.split, data.canvas, moves._replace(mosaic=0.0), config.repeats)
        self.order = Order(len(source), config.batch_size, config.seed, world=accelerator.world)

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        source = self.early if epoch < self.config.mosaic_until * self.config.epochs else self.late
        pin = self.accelerator.device.type == "cuda"
        streamed = StreamLoader(source, self.order, workers=self.config.workers, collate=collate, pin_memory=pin)
        for batch in streamed.batches(epoch, start):
            pixels, targets, _ = self.accelerator.to_device(batch)
            yield normalize(pixels, self.table), targets


class EvaluationLoader:
    """All pictures of a split once, whole, in their order, with their rows; shared among the ranks of `world`."""

    def __init__(self, split: Split, data: Data, config: Config, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)
        self.source = Samples(split, data.canvas)
        self.source.split = hold(split, self.source.limit, config)
        self.num_classes = len(data.classes)
        self.order = Order(len(split), 2 * config.batch_size, training=False, world=accelerator.world)

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, list[int]]]:
        """Images [N, 3, H, W] and the rows of their pictures."""
        streamed = StreamLoader(self.source, self.order, workers=self.config.workers, collate=collate)
        for batch in streamed.batches(epoch, start):
            pixels, _, rows = self.accelerator.to_device(batch)
            yield normalize(pixels, self.table), rows


def collate(samples: Sequence[tuple[Sample, int]]) -> tuple[Tensor, list[dict[str, Tensor]], list[int]]:
    """Pixels uint8 [N, H, W, 3], the targets, and the rows of the pictures."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample, _ in samples]))
    targets = [
        {name: torch.from_numpy(getattr(sample, name)) for name in ("boxes", "labels", "uncounted")}
        for sample, _ in samples
    ]
    return pixels, targets, [row for _, row in samples]


def synthetic(config: Config) -> tuple[Sequence[str], dict[str, Split]]:
    """Drawn pictures: `num_synthetic` for training, a sixth as many each for validation and test."""
    from projects.detection.synthetic import CLASSES, draw_scenes

    num_other = config.num_synthetic // 6
    scenes = draw_scenes(config.num_synthetic + 2 * num_other, config.seed)
    pictures = [scene.picture for scene in scenes]
    pixels = [scene.pixels for scene in scenes]
    parts = {"test": (0, num_other), "val": (num_other, 2 * num_other), "train": (2 * num_other, len(scenes))}
    return CLASSES, {name: Split(pictures[a:b], pixels[a:b]) for name, (a, b) in parts.items()}
