"""Batches of the detector's images: augmented for training, whole for evaluation.

An image is decoded once and held in memory at the size that training needs, or, where the set is too large for that,
decoded each time by the loader's workers; both give bit-equal batches. Every random choice is a function of (seed,
epoch, sample), also that of the three other images of a mosaic.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.accelerator import Accelerator
from core.data import Order, StreamLoader
from cuda_ext import lookup_table, normalize
from projects.detection.augment import Augmentation, Sample, fitted_size, letterbox, resized, training_sample
from projects.detection.config import Config
from projects.detection.data import AnnotatedSet, Data
from projects.detection.detector import Target

Batch = tuple[Tensor, list[Target]]  # images float32 [N, 3, H, W], normalized; a target for each
_RESIDENT_BYTES = 4 << 30


class TrainingLoader:
    """Shuffled batches of augmented images; in the last epochs without mosaics."""

    def __init__(self, data: Data, config: Config, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)
        augmentation = Augmentation(config.mosaic, config.zoom, config.flip, config.flip_vertical, config.color)
        source = SampleSource(data.train, data.canvas, augmentation, config.repeats)
        held = _hold(data.train, source.limit, config)
        self.early = SampleSource(held, data.canvas, augmentation, config.repeats)
        self.late = SampleSource(held, data.canvas, augmentation._replace(mosaic=0.0), config.repeats)
        self.order = Order(len(source), config.batch_size, config.seed, world=accelerator.world)

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        source = self.early if epoch < self.config.mosaic_until * self.config.epochs else self.late
        pin = self.accelerator.device.type == "cuda"
        streamed = StreamLoader(source, self.order, workers=self.config.workers, collate=_collate, pin_memory=pin)
        for batch in streamed.batches(epoch, start):
            pixels, targets, _ = self.accelerator.to_device(batch)
            yield normalize(pixels, self.table), targets


class EvaluationLoader:
    """All images of a split once, whole, in their order, with their rows; shared among the ranks of `world`."""

    def __init__(self, split: AnnotatedSet, data: Data, config: Config, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)
        self.source = SampleSource(split, data.canvas)
        self.source.split = _hold(split, self.source.limit, config)
        self.num_classes = len(data.classes)
        self.order = Order(len(split), 2 * config.batch_size, training=False, world=accelerator.world)

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, list[int]]]:
        """Images float32 [N, 3, H, W], normalized, and their rows in the split."""
        streamed = StreamLoader(self.source, self.order, workers=self.config.workers, collate=_collate)
        for batch in streamed.batches(epoch, start):
            pixels, _, rows = self.accelerator.to_device(batch)
            yield normalize(pixels, self.table), rows


class SampleSource:
    """A split as a source for the loader: each image once and whole, or `repeats` times and augmented."""

    def __init__(
        self, split: AnnotatedSet, canvas: tuple[int, int], augmentation: Augmentation | None = None, repeats: int = 1
    ) -> None:
        self.split, self.canvas, self.augmentation, self.repeats = split, canvas, augmentation, repeats
        # Images are held as large as the largest zoom needs them, so that held and streamed ones have the same pixels.
        zoom = 1.0 if augmentation is None else augmentation.zoom
        self.limit = (round(canvas[0] * zoom), round(canvas[1] * zoom))

    def __len__(self) -> int:
        return len(self.split) * self.repeats

    def load(self, index: int, random: np.random.Generator) -> tuple[Sample, int]:
        """The sample on its canvas, and the row of its image."""
        row = index % len(self.split)
        if self.augmentation is None:
            return letterbox(self.fetch(row), self.canvas), row
        return training_sample(row, len(self.split), self.fetch, self.canvas, self.augmentation, random), row

    def fetch(self, row: int) -> Sample:
        """A stored image with its boxes in its own pixels."""
        image, pixels = self.split.images[row], reduced(self.split.decode(row), self.limit)
        scale = [pixels.shape[1] / image.width, pixels.shape[0] / image.height] * 2
        boxes = image.boxes * np.array(scale, dtype=np.float32)
        return Sample(pixels, boxes, image.labels, image.ignored)

    def name(self, index: int) -> str:
        """The image's path."""
        return str(self.split.images[index % len(self.split)].path)


def _collate(samples: Sequence[tuple[Sample, int]]) -> tuple[Tensor, list[Target], list[int]]:
    """Pixels uint8 [N, H, W, 3], the targets, and the rows of the images."""
    pixels = torch.from_numpy(np.stack([sample.pixels for sample, _ in samples]))
    targets = [
        {name: torch.from_numpy(getattr(sample, name)) for name in ("boxes", "labels", "ignored")}
        for sample, _ in samples
    ]
    return pixels, targets, [row for _, row in samples]


def _hold(split: AnnotatedSet, limit: tuple[int, int], config: Config) -> AnnotatedSet:
    """The split with its images in memory, no larger than the limit (height, width), if the settings say so."""
    num_bytes = len(split) * limit[0] * limit[1] * 3
    if config.resident == "no" or (config.resident == "auto" and num_bytes > _RESIDENT_BYTES):
        return split
    with ThreadPoolExecutor(max(2, config.workers)) as pool:  # Pillow decodes without holding the interpreter's lock
        return replace(split, pixels=list(pool.map(lambda row: reduced(split.decode(row), limit), range(len(split)))))


def reduced(pixels: NDArray[np.uint8], limit: tuple[int, int]) -> NDArray[np.uint8]:
    """An image uint8 [H, W, 3], resized where it is larger than the limit (height, width)."""
    size = fitted_size(pixels.shape[0], pixels.shape[1], limit)
    return resized(pixels, size) if size[0] < pixels.shape[0] else pixels
