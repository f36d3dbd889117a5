"""The GAN's images: a folder, scikit-learn's digits or generated shapes, in memory; a part is held out from training.

Samples are compared with the held-out images: the distance between these and the training images is the lowest value
that a good generator can be expected to reach. The digits: Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49.
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

from core import randomness
from core.accelerator import Accelerator
from core.data import Loader, Order
from core.errors import UserError
from core.vision.folders import Listing, find_splits, list_classes, list_images, visible_folders
from core.vision.image_set import ImageSet, batches, from_listing, from_pixels, hold_out, sha256_of, split_notes
from cuda_ext import augment, lookup_table
from projects.gan.config import DIGITS, SYNTHETIC, Config

Batch = tuple[Tensor, Tensor]  # images [N, C, S, S] in [-1, 1]; labels int64 [N]
_MAX_BYTES = 8 << 30
_MIN_HELD_OUT = 20


@dataclass(frozen=True)
class Data:
    """Images to train on and images held out.

    classes: their names, none for images without labels. sha256: of images and labels before the split. notes: what a
    user should know of the data, a line each.
    """

    classes: Sequence[str]
    train: ImageSet
    held_out: ImageSet
    sha256: str = ""
    notes: Sequence[str] = ()


def load_data(config: Config, device: torch.device) -> Data:
    """The images that the settings name, on the device. Raises UserError, naming file and reason."""
    notes: list[str] = []
    if config.data == SYNTHETIC:
        classes, sets = _synthetic(config)
    elif config.data == DIGITS:
        classes, sets = _digits(config.size)
    else:
        classes, sets, notes = _folder(Path(config.data), config.size, max(2, config.workers))
    sha256 = sha256_of(sets, classes)
    if "held_out" not in sets:
        sets["train"], sets["held_out"] = hold_out(sets["train"], config.val_fraction, config.seed)
    train, held_out = sets["train"], sets["held_out"]
    if len(held_out) < _MIN_HELD_OUT:
        where = f"--data {config.data}: {len(train)} to train on, {len(held_out)} held out"
        raise UserError("too few images", where, f"at least {_MIN_HELD_OUT} have to be held out; add images")
    notes += split_notes(sets, classes)
    return Data(classes, train.to(device), held_out.to(device), sha256, notes)


def pixels_of(images: ImageSet) -> Tensor:
    """The pixels of a set in memory, as all of the GAN's are: uint8 [N, S, S, C]."""
    assert images.pixels is not None
    return images.pixels


class _Passes:
    """Shuffled batches of one pass after another over the images, cut into epochs of a fixed number of batches."""

    def __init__(self, passes: Loader[Batch], epoch_steps: int) -> None:
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


def training_loader(data: Data, config: Config, accelerator: Accelerator) -> _Passes:
    """Shuffled batches of the training images, mirrored at random if the settings say so."""
    size, channels = config.size, pixels_of(data.train).shape[3]
    table = lookup_table([0.5] * channels, [0.5] * channels).to(accelerator.device, accelerator.dtype)
    highs = (1, 1, 2 if config.flip else 1, size, size)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Batch:
        choices = randomness.uniform_integers(config.seed, epoch, samples, "flip", highs)
        return augment(pixels, rows, choices, table, 0, 0), labels

    order = Order(len(data.train), config.batch_size, config.seed, world=accelerator.world)
    return _Passes(batches(data.train, order, make, accelerator), config.epoch_steps)


def to_pixels(generated: Tensor) -> Tensor:
    """A generator's images [N, C, S, S] in [-1, 1] as uint8 [N, S, S, C]."""
    return to_levels(generated).round().to(torch.uint8)


def to_levels(generated: Tensor) -> Tensor:
    """A generator's images [N, C, S, S] in [-1, 1] as gray levels, float32 [N, S, S, C] in [0, 255]."""
    return ((generated.float() + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1)


def _synthetic(config: Config) -> tuple[Sequence[str], dict[str, ImageSet]]:
    """Generated shapes."""
    from projects.gan.synthetic import CLASSES, generate_images

    return CLASSES, {"train": from_pixels(*generate_images(config.num_synthetic, config.seed, config.size))}


def _digits(size: int) -> tuple[Sequence[str], dict[str, ImageSet]]:
    """The 1,797 handwritten digits of 8×8 pixels, resized, in gray."""
    datasets: Any = importlib.import_module("sklearn.datasets")
    loaded = datasets.load_digits()
    gray = torch.from_numpy(np.asarray(loaded.images, dtype=np.float32))[:, None] / 16
    gray = F.interpolate(gray, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    pixels = (gray * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return [str(k) for k in range(10)], {"train": from_pixels(pixels.numpy(), loaded.target.astype(np.int64))}


def _folder(root: Path, size: int, threads: int) -> tuple[Sequence[str], dict[str, ImageSet], list[str]]:
    """ROOT/train with ROOT/test or ROOT/val as held-out images, or ROOT itself; and notes on what is not used."""
    folders, notes = find_splits(root)
    listings = {"train": _listed(folders["train"], None)}
    held_out = next((name for name in ("test", "val") if name in folders), None)
    if held_out is not None:
        listings["held_out"] = _listed(folders[held_out], listings["train"].classes)
        notes += [f"{root}: not used: {name}" for name in folders if name not in ("train", held_out)]
    num = sum(len(listing.paths) for listing in listings.values())
    if num * size * size * 3 > _MAX_BYTES:
        where = f"{root}: {num:,} of {size} pixels take more than {_MAX_BYTES >> 30} GB"
        raise UserError("the images do not fit into memory", where, "give a smaller --image-size")
    sets = {}
    for name, listing in listings.items():
        notes += listing.notes
        sets[name], _ = from_listing(listing, size, resident=True, threads=threads)
    return listings["train"].classes, sets, notes


def _listed(root: Path, classes: Sequence[str] | None) -> Listing:
    """Images in class folders; where there are fewer than two such, all images in and below ROOT, without classes.

    classes: of the training images, for the held-out ones; None for the training images themselves.
    """
    if classes or (classes is None and len(visible_folders(root)) >= 2):
        return list_classes(root, classes)
    return list_images(root)
