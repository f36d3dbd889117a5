"""Pictures served in batches: shuffled, balanced, augmented and mixed for training, plain and mirrored for evaluation.

Random choices are a function of (seed, epoch, sample), so pictures that stream through workers give the very batches
that resident ones give.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core import images, randomness
from core.accelerator import Accelerator
from core.data import BatchLoader, Loader, MappedLoader, Order, StreamLoader
from core.distributed import World
from cuda_ext import lookup_table
from projects.transfer.augment import Look, mix, plain_view, training_view
from projects.transfer.config import Config
from projects.transfer.data import Data, Split

Batch = tuple[Tensor, Tensor]  # pictures [N, 3, S, S] or features [N, F]; targets float32 [N, num_classes]
Views = tuple[Sequence[Tensor], Tensor]  # what evaluation sees of a picture, one or two of the same; labels int64 [N]
B = TypeVar("B")
Make = Callable[[Tensor, Tensor, Tensor, Tensor, int], B]  # pixels, rows of them, samples, labels, epoch → batch


def training_loader(data: Data, look: Look, config: Config, accelerator: Accelerator) -> Loader[Batch]:
    """Shuffled, augmented, mixed batches."""
    order = training_order(data, config, accelerator.world)
    table = lookup_table(look.mean, look.std).to(accelerator.device, accelerator.dtype)
    num, num_classes = len(data.train), len(data.classes)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Batch:
        targets = F.one_hot(labels, num_classes).float()
        if config.num_views:  # a picture has few views, which every draw of it shares
            images = training_view(pixels, rows, samples % num, epoch % config.num_views, look, table, config)
        else:
            images = training_view(pixels, rows, samples, epoch, look, table, config)
        return mix(images, targets, samples, epoch, config) if config.mixes else (images, targets)

    return loader(data.train, order, make, config, accelerator)


def evaluation_loader(
    split: Split, look: Look, config: Config, accelerator: Accelerator, world: World
) -> Loader[Views]:
    """All pictures of a split once, in their order, as they are, and mirrored; shared among the ranks of `world`."""
    order = Order(len(split), config.batch_size, training=False, world=world)
    table = lookup_table(look.mean, look.std).to(accelerator.device, accelerator.dtype)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Views:
        images = plain_view(pixels[rows], look, table)
        return ([images, images.flip(3)] if config.test_flip else [images]), labels

    return loader(split, order, make, config, accelerator)


def training_order(data: Data, config: Config, world: World) -> Order:
    """The order of samples in training, by --balance."""
    if config.balance == "sampler":
        labels = torch.from_numpy(data.train.labels)
        return Balanced(len(data.train), config.batch_size, config.seed, world=world, labels=labels)
    return Order(len(data.train), config.batch_size, config.seed, world=world)


@dataclass(frozen=True)
class Balanced(Order):
    """An order that draws from each class alike, a rare one's pictures several times an epoch.

    Sample `row + copy·num_samples` is the picture's draw number `copy`, so each draw has random choices of its own.
    """

    labels: Tensor | None = None

    def indices(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """This rank's samples of each batch from number `start` on."""
        assert self.labels is not None
        rows = [torch.nonzero(self.labels == label)[:, 0] for label in range(int(self.labels.max()) + 1)]
        drawn = torch.empty(self.num_samples, dtype=torch.int64)
        for number, own in enumerate(rows):
            places = torch.arange(number, self.num_samples, len(rows))
            order = own[randomness.permutation(self.seed, -1 - epoch, len(own))]
            turns = torch.arange(len(places))
            drawn[places] = order[turns % len(own)] + self.num_samples * (turns // len(own))
        for batch in super().indices(epoch, start):
            yield drawn[batch]


def loader(split: Split, order: Order, make: Make[B], config: Config, accelerator: Accelerator) -> Loader[B]:
    """Batches of `make(pixels, rows of pixels, samples, labels, epoch)`, resident or streamed."""
    device, num = accelerator.device, len(split)
    if split.pixels is not None:
        pixels, all_labels = split.pixels, torch.from_numpy(split.labels).to(device)

        def make_batch(samples: Tensor, epoch: int) -> B:
            samples = samples.to(device, non_blocking=True)
            rows = samples % num
            return make(pixels, rows, samples, all_labels[rows], epoch)

        return BatchLoader(make_batch, order)
    copies = 1
    if isinstance(order, Balanced):
        rarest = int(np.bincount(split.labels).min())
        copies = -(-len(split) // rarest)  # of a picture in an epoch, at most
    listing = images.Listing(split.paths, split.labels, ())
    source = images.Squares(listing, np.tile(np.arange(num), copies), split.side)
    streamed = StreamLoader(source, order, workers=config.workers, pin_memory=device.type == "cuda")

    def finish(batch: tuple[Tensor, Tensor, Tensor], epoch: int) -> B:
        pixels, labels, samples = accelerator.to_device(batch)
        rows = torch.arange(len(pixels), device=device)
        return make(pixels, rows, samples, labels, epoch)

    return MappedLoader(streamed, finish)
