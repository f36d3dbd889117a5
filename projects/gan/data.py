"""The GAN's pictures: a folder, scikit-learn's digits or a drawn set, resident; a part is held out from training.

The held-out pictures are what samples are measured against: how far real pictures that were never shown lie from those
that were is the floor of every distance. The digits: Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49.
"""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core import images, randomness
from core.accelerator import Accelerator
from core.data import BatchLoader, Order
from core.errors import UserError
from cuda_ext import augment, lookup_table
from projects.gan.config import DIGITS, SYNTHETIC, Config

Batch = tuple[Tensor, Tensor]  # images [N, C, S, S] in [-1, 1]; labels int64 [N]
RESIDENT_BYTES = 8 << 30
FEWEST_HELD_OUT = 20


@dataclass(frozen=True)
class Pictures:
    """pixels: uint8 [N, S, S, C]; labels: int64 [N], 0 without classes."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> "Pictures":
        """Some of them."""
        return Pictures(self.pixels[rows], self.labels[rows])

    def to(self, device: torch.device) -> "Pictures":
        """All of them on a device."""
        return Pictures(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """Pictures to learn from and pictures held out; classes: their names, none for pictures without labels."""

    classes: Sequence[str]
    train: Pictures
    held_out: Pictures


def load_data(config: Config, device: torch.device) -> Data:
    """The pictures that the settings name, on the device. Raises UserError, naming file and reason."""
    if config.data == SYNTHETIC:
        classes, train, held_out = synthetic(config)
    elif config.data == DIGITS:
        classes, train, held_out = digits(config.size)
    else:
        classes, train, held_out = folder(Path(config.data), config.size, max(2, config.workers))
    if held_out is None:
        order = randomness.permutation(config.seed, 0, len(train))
        num = round(config.val_fraction * len(train))
        held_out, train = train.take(order[:num].sort().values), train.take(order[num:].sort().values)
    if len(held_out) < FEWEST_HELD_OUT:
        where = f"--data {config.data}: {len(train)} to learn from, {len(held_out)} held out"
        raise UserError("too few pictures", where, f"at least {FEWEST_HELD_OUT} have to be held out; add pictures")
    return Data(classes, train.to(device), held_out.to(device))


class Passes:
    """Shuffled batches of pass after pass over the pictures, cut into epochs of a fixed number of batches."""

    def __init__(self, passes: BatchLoader[Batch], epoch_steps: int) -> None:
        self.passes, self.epoch_steps = passes, epoch_steps

    def __len__(self) -> int:
        return self.epoch_steps

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        first, end = epoch * self.epoch_steps + start, (epoch + 1) * self.epoch_steps
        while first < end:
            number, position = divmod(first, len(self.passes))
            yield from islice(self.passes.batches(number, position), end - first)
            first = min(end, (number + 1) * len(self.passes))


def training_loader(data: Data, config: Config, accelerator: Accelerator) -> Passes:
    """Shuffled batches of the training pictures, mirrored at random if the settings say so."""
    pixels, labels, size = data.train.pixels, data.train.labels, config.size
    table = lookup_table([0.5] * pixels.shape[3], [0.5] * pixels.shape[3]).to(accelerator.device, accelerator.dtype)
    highs = (1, 1, 2 if config.flip else 1, size, size)

    def make_batch(rows: Tensor, epoch: int) -> Batch:
        rows = rows.to(accelerator.device, non_blocking=True)
        choices = randomness.uniform_integers(config.seed, epoch, rows, "flip", highs)
        return augment(pixels, rows, choices, table, 0, 0), labels[rows]

    order = Order(len(data.train), config.batch_size, config.seed, world=accelerator.world)
    return Passes(BatchLoader(make_batch, order), config.epoch_steps)


def to_pixels(drawn: Tensor) -> Tensor:
    """A generator's pictures [N, C, S, S] in [-1, 1] as uint8 [N, S, S, C]."""
    return ((drawn.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def synthetic(config: Config) -> tuple[Sequence[str], Pictures, Pictures | None]:
    """Drawn shapes."""
    from projects.gan.synthetic import CLASSES, draw_pictures

    pixels, labels = draw_pictures(config.num_synthetic, config.seed, config.size)
    return CLASSES, Pictures(torch.from_numpy(pixels), torch.from_numpy(labels)), None


def digits(size: int) -> tuple[Sequence[str], Pictures, Pictures | None]:
    """The 1,797 handwritten digits of 8×8 pixels, brought to another size, in gray."""
    datasets: Any = importlib.import_module("sklearn.datasets")
    loaded = datasets.load_digits()
    gray = torch.from_numpy(np.asarray(loaded.images, dtype=np.float32))[:, None] / 16
    gray = F.interpolate(gray, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    pixels = (gray * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return [str(k) for k in range(10)], Pictures(pixels, torch.from_numpy(loaded.target.astype(np.int64))), None


def folder(root: Path, size: int, threads: int) -> tuple[Sequence[str], Pictures, Pictures | None]:
    """ROOT/train with ROOT/test or ROOT/val, or ROOT itself."""
    training = root / "train" if (root / "train").is_dir() else root
    listing = listed(training, None)
    held_out = None
    for name in ("test", "val") if training != root else ():
        if (root / name).is_dir():
            held_out = listed(root / name, listing.classes)
            break
    num = len(listing.paths) + (0 if held_out is None else len(held_out.paths))
    if num * size * size * 3 > RESIDENT_BYTES:
        where = f"{root}: {num:,} of {size} pixels take more than {RESIDENT_BYTES >> 30} GB"
        raise UserError("the pictures do not fit into memory", where, "give a smaller --image-size")
    first = from_listing(listing, size, threads)
    return listing.classes, first, None if held_out is None else from_listing(held_out, size, threads)


def listed(root: Path, classes: Sequence[str] | None) -> images.Listing:
    """Pictures in class folders; where there are fewer than two such, all pictures in and below, without classes."""
    folders = [entry for entry in root.iterdir() if entry.is_dir() and any(entry.iterdir())]
    if classes or (classes is None and len(folders) >= 2):
        return images.list_folder(root, classes)
    paths = images.below(root)
    return images.Listing(paths, np.zeros(len(paths), dtype=np.int64), [])


def from_listing(listing: images.Listing, size: int, threads: int) -> Pictures:
    """A listing's pictures, decoded."""
    pixels = images.load_squares(listing.paths, size, threads)
    return Pictures(torch.from_numpy(pixels), torch.from_numpy(listing.labels))
