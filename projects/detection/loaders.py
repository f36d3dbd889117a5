"""Batches of the detector's images: augmented for training, whole for evaluation.

An image is decoded once and held on the device at the size that training needs, or, where the set is too large for
that, decoded each time by the loader's workers; both give bit-equal batches, which are drawn on the device. Every
random choice is a function of (seed, epoch, sample), also that of the three other images of a mosaic.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from projects.detection.detector import Targets

Batch = tuple[Tensor, Targets]  # images float32 [N, 3, H, W], normalized; their objects
_RESIDENT_BYTES = 4 << 30


class _CanvasLoader:
    """Batches of canvases, drawn from held pixels or from those that the loader's workers decode."""

    def __init__(
        self, source: "SampleSource", order: Order, data: Data, config: Config, accelerator: Accelerator
    ) -> None:
        self.source, self.order, self.workers, self.accelerator = source, order, config.workers, accelerator
        self.table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)
        self.held: Packed | None = None
        if source.is_held:
            with ThreadPoolExecutor(max(2, config.workers)) as pool:  # Pillow decodes without the interpreter's lock
                sizes = [(image.height, image.width) for image in source.images]
                self.held = accelerator.to_device(pack(pool.map(source.decode, range(len(sizes))), sizes))

    def __len__(self) -> int:
        return len(self.order)

    def drawn(self, source: "SampleSource", epoch: int, start: int) -> Iterator[tuple[Tensor, Targets, list[int]]]:
        """Images float32 [N, 3, H, W], normalized, their objects, and their rows in the split."""
        pin = self.accelerator.device.type == "cuda"
        streamed = StreamLoader(source, self.order, workers=self.workers, collate=_collate, pin_memory=pin)
        for batch in streamed.batches(epoch, start):
            layout, pixels, targets, rows = self.accelerator.to_device(batch)
            yield draw(self.held or pixels, layout, source.canvas, self.table), targets, rows


class TrainingLoader(_CanvasLoader):
    """Shuffled batches of augmented images; in the last epochs without mosaics."""

    def __init__(self, data: Data, config: Config, accelerator: Accelerator) -> None:
        augmentation = Augmentation(config.mosaic, config.zoom, config.flip, config.flip_vertical, config.color)
        source = SampleSource(data.train, data.canvas, config, augmentation)
        self.late = SampleSource(data.train, data.canvas, config, augmentation._replace(mosaic=0.0))
        self.num_early = config.mosaic_until * config.epochs
        order = Order(len(source), config.batch_size, config.seed, world=accelerator.world)
        super().__init__(source, order, data, config, accelerator)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        for images, targets, _ in self.drawn(self.source if epoch < self.num_early else self.late, epoch, start):
            yield images, targets


class EvaluationLoader(_CanvasLoader):
    """All images of a split once, whole, in their order, with their rows; shared among the ranks of `world`."""

    def __init__(self, split: AnnotatedSet, data: Data, config: Config, accelerator: Accelerator) -> None:
        self.num_classes = len(data.classes)
        order = Order(len(split), 2 * config.batch_size, training=False, world=accelerator.world)
        super().__init__(SampleSource(split, data.canvas, config), order, data, config, accelerator)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, list[int]]]:
        """Images and their rows in the split."""
        for images, _, rows in self.drawn(self.source, epoch, start):
            yield images, rows


class SampleSource:
    """A split as a source for the loader: each image once and whole, or `repeats` times and augmented.

    images: those of the split, with their sizes and boxes as they are held. is_held: whether all pixels are held, so
    that none come with a sample.
    """

    def __init__(
        self, split: AnnotatedSet, canvas: tuple[int, int], config: Config, augmentation: Augmentation | None = None
    ) -> None:
        self.split, self.canvas, self.augmentation = split, canvas, augmentation
        self.repeats, zoom = (config.repeats, augmentation.zoom) if augmentation else (1, 1.0)
        # As large as the largest zoom needs them; streamed images too, so that they have the same pixels.
        self.images = [reduced(image, (round(canvas[0] * zoom), round(canvas[1] * zoom))) for image in split.images]
        num_bytes = sum(image.height * image.width * 3 for image in self.images)
        self.is_held = config.resident == "yes" or (config.resident == "auto" and num_bytes <= _RESIDENT_BYTES)

    def __len__(self) -> int:
        return len(self.images) * self.repeats

    def load(self, index: int, random: np.random.Generator) -> tuple[Sample, int, list[NDArray[np.uint8]]]:
        """The sample, the row of its image, and the pixels of its parts' images unless they are held."""
        row = index % len(self.images)
        if self.augmentation is None:
            sample = letterbox(row, self.images, self.canvas)
        else:
            sample = training_sample(row, self.images, self.canvas, self.augmentation, random)
        return sample, row, [] if self.is_held else [self.decode(part.row) for part in sample.parts]

    def decode(self, row: int) -> NDArray[np.uint8]:
        """The pixels of an image, uint8 [H, W, 3]."""
        pixels, size = self.split.decode(row), (self.images[row].width, self.images[row].height)
        if pixels.shape[1::-1] == size:
            return pixels
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

    def name(self, index: int) -> str:
        """The image's path."""
        return str(self.split.images[index % len(self.images)].path)


def _collate(
    loaded: Sequence[tuple[Sample, int, list[NDArray[np.uint8]]]],
) -> tuple[Layout, Packed | None, Targets, list[int]]:
    """What the canvases show, the pixels that come with it, the objects, and the rows of the images."""
    samples, pixels = [sample for sample, _, _ in loaded], [each for _, _, images in loaded for each in images]
    if pixels:
        numbers = count()
        for n, sample in enumerate(samples):
            samples[n] = sample._replace(parts=[part._replace(row=next(numbers)) for part in sample.parts])
    packed = pack(pixels, [each.shape[:2] for each in pixels]) if pixels else None
    objects = [tuple(map(torch.from_numpy, (each.boxes, each.labels, each.ignored))) for each in samples]
    return lay_out(samples), packed, Targets.of(objects), [row for _, row, _ in loaded]


def reduced(image: AnnotatedImage, limit: tuple[int, int]) -> AnnotatedImage:
    """The size and the boxes of an image that is resized where it is larger than the limit (height, width)."""
    height, width = fitted_size(image.height, image.width, limit)
    if height >= image.height:
        return image
    scale = np.array([width / image.width, height / image.height] * 2, dtype=np.float32)
    return replace(image, height=height, width=width, boxes=image.boxes * scale)
