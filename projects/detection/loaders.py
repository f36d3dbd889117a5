"""Batches of the detector's images: augmented for training, whole for evaluation.

An image is decoded once and held on the device at the size that training needs, or, where the set is too large for that,
decoded each time by the loader's workers; both give bit-equal batches. Every random choice is a function of (seed,
epoch, sample), also that of the three other images of a mosaic. A batch is drawn as a whole, on the device.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.accelerator import Accelerator
from core.data import Order, StreamLoader
from cuda_ext import lookup_table
from projects.detection.annotations import AnnotatedImage
from projects.detection.augment import Augmentation, Sample, fitted_size, letterbox, training_sample
from projects.detection.canvas import Layout, Packed, draw, lay_out, pack
from projects.detection.config import Config
from projects.detection.data import AnnotatedSet, Data
from projects.detection.detector import Target

Batch = tuple[Tensor, list[Target]]  # images float32 [N, 3, H, W], normalized; a target for each
_RESIDENT_BYTES = 4 << 30


class TrainingLoader:
    """Shuffled batches of augmented images; in the last epochs without mosaics."""

    def __init__(self, data: Data, config: Config, accelerator: Accelerator) -> None:
        self.config = config
        augmentation = Augmentation(config.mosaic, config.zoom, config.flip, config.flip_vertical, config.color)
        self.early = SampleSource.of(data.train, data, config, augmentation)
        self.late = replace(self.early, augmentation=augmentation._replace(mosaic=0.0))
        self.order = Order(len(self.early), config.batch_size, config.seed, world=accelerator.world)
        self.canvases = _Canvases(self.early, data, config, accelerator)

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        source = self.early if epoch < self.config.mosaic_until * self.config.epochs else self.late
        for images, targets, _ in self.canvases.batches(source, self.order, epoch, start):
            yield images, targets


class EvaluationLoader:
    """All images of a split once, whole, in their order, with their rows; shared among the ranks of `world`."""

    def __init__(self, split: AnnotatedSet, data: Data, config: Config, accelerator: Accelerator) -> None:
        self.source = SampleSource.of(split, data, config)
        self.num_classes = len(data.classes)
        self.order = Order(len(split), 2 * config.batch_size, training=False, world=accelerator.world)
        self.canvases = _Canvases(self.source, data, config, accelerator)

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, list[int]]]:
        """Images float32 [N, 3, H, W], normalized, and their rows in the split."""
        for images, _, rows in self.canvases.batches(self.source, self.order, epoch, start):
            yield images, rows


@dataclass(frozen=True)
class SampleSource:
    """A split as a source for the loader: each image once and whole, or `repeats` times and augmented.

    images: those of the split, with the sizes and boxes that they have where they are held or decoded. held: whether
    their pixels are held, so that none are loaded.
    """

    split: AnnotatedSet
    images: Sequence[AnnotatedImage]
    canvas: tuple[int, int]
    augmentation: Augmentation | None
    repeats: int
    held: bool

    @staticmethod
    def of(split: AnnotatedSet, data: Data, config: Config, augmentation: Augmentation | None = None) -> "SampleSource":
        """The source for training, with an augmentation, or for evaluation."""
        # As large as the largest zoom needs them.
        limit = tuple(round(side * (augmentation.zoom if augmentation else 1)) for side in data.canvas)
        images = [reduced(image, (limit[0], limit[1])) for image in split.images]
        num_bytes = sum(image.height * image.width * 3 for image in images)
        held = config.resident == "yes" or (config.resident == "auto" and num_bytes <= _RESIDENT_BYTES)
        return SampleSource(split, images, data.canvas, augmentation, config.repeats if augmentation else 1, held)

    def __len__(self) -> int:
        return len(self.images) * self.repeats

    def load(self, index: int, random: np.random.Generator) -> tuple[Sample, int, list[NDArray[np.uint8]]]:
        """The sample, the row of its image, and the pixels of its parts' images unless they are held."""
        row = index % len(self.images)
        if self.augmentation is None:
            sample = letterbox(row, self.images, self.canvas)
        else:
            sample = training_sample(row, self.images, self.canvas, self.augmentation, random)
        return sample, row, [] if self.held else [self.decode(part.row) for part in sample.parts]

    def decode(self, row: int) -> NDArray[np.uint8]:
        """The pixels of an image, uint8 [H, W, 3]."""
        image, pixels = self.images[row], self.split.decode(row)
        if pixels.shape[:2] == (image.height, image.width):
            return pixels
        return np.asarray(Image.fromarray(pixels).resize((image.width, image.height), Image.Resampling.BILINEAR))

    def name(self, index: int) -> str:
        """The image's path."""
        return str(self.split.images[index % len(self.images)].path)


class _Canvases:
    """Draws batches of samples, from held pixels or from those that come with a batch."""

    def __init__(self, source: SampleSource, data: Data, config: Config, accelerator: Accelerator) -> None:
        self.accelerator, self.workers, self.canvas = accelerator, config.workers, data.canvas
        self.table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)
        self.held: Packed | None = None
        if source.held:
            with ThreadPoolExecutor(max(2, config.workers)) as pool:  # Pillow decodes without the interpreter's lock
                pixels = pool.map(source.decode, range(len(source.images)))
                sizes = [(image.height, image.width) for image in source.images]
                self.held = accelerator.to_device(pack(pixels, sizes))

    def batches(
        self, source: SampleSource, order: Order, epoch: int, start: int
    ) -> Iterator[tuple[Tensor, list[Target], list[int]]]:
        """Images [N, 3, H, W], normalized, a target for each, and their rows."""
        pin = self.accelerator.device.type == "cuda"
        streamed = StreamLoader(source, order, workers=self.workers, collate=_collate, pin_memory=pin)
        for batch in streamed.batches(epoch, start):
            layout, pixels, targets, rows = self.accelerator.to_device(batch)
            yield draw(self.held or pixels, layout, self.canvas, self.table), targets, rows


def _collate(
    loaded: Sequence[tuple[Sample, int, list[NDArray[np.uint8]]]],
) -> tuple[Layout, Packed | None, list[Target], list[int]]:
    """What the canvases show, the pixels that came with them, the targets, and the rows of the images."""
    samples, packed = [sample for sample, _, _ in loaded], None
    pixels = [each for _, _, images in loaded for each in images]
    if pixels:
        packed, rows = pack(pixels, [(each.shape[0], each.shape[1]) for each in pixels]), count()
        for number, sample in enumerate(samples):
            samples[number] = sample._replace(parts=[part._replace(row=next(rows)) for part in sample.parts])
    targets = [
        {name: torch.from_numpy(getattr(sample, name)) for name in ("boxes", "labels", "ignored")} for sample in samples
    ]
    return lay_out(samples), packed, targets, [row for _, row, _ in loaded]


def reduced(image: AnnotatedImage, limit: tuple[int, int]) -> AnnotatedImage:
    """The size and the boxes of an image that is resized where it is larger than the limit (height, width)."""
    height, width = fitted_size(image.height, image.width, limit)
    if height >= image.height:
        return image
    scale = np.array([width / image.width, height / image.height] * 2, dtype=np.float32)
    return replace(image, height=height, width=width, boxes=image.boxes * scale)
