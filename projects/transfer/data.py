"""The images: a folder or the generated target domain, split into training, validation and test, served in batches.

A folder is ROOT/train/CLASS/** with ROOT/val and ROOT/test where there are such, or ROOT/CLASS/**. A set that has no
folder is cut off the training images by the seed, class by class; where only val/ or only test/ is there, it is the
test. Random choices are a function of (seed, epoch, sample).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core import randomness
from core.accelerator import Accelerator
from core.data import Loader, Order
from core.distributed import World
from core.vision.folders import find_splits, list_classes
from core.vision.image_set import (
    ImageSet,
    batches,
    from_listing,
    from_pixels,
    hold_out_by_class,
    is_resident,
    sha256_of,
    split_notes,
)
from core.vision.preprocessing import views_of
from cuda_ext import lookup_table
from projects.transfer.augment import Preprocessing, mix, plain_view, training_view
from projects.transfer.config import SYNTHETIC, Config
from projects.transfer.synthetic import NUM_SYNTHETIC_TEST, TARGET_CLASSES, draw_images

# Images [N, 3, S, S] or features [N, F], with target images 2N of them; targets float32 [N, num_classes].
Batch = tuple[Tensor, Tensor]
Views = tuple[Sequence[Tensor], Tensor]  # each image as evaluation sees it, once or twice (mirrored); labels int64 [N]


@dataclass(frozen=True)
class Data:
    """The three sets.

    sha256: of the images before they are split. notes: what a user should know, a line each. skipped: broken images
    that were left out, with what is wrong with each.
    """

    classes: Sequence[str]
    train: ImageSet
    val: ImageSet
    test: ImageSet
    sha256: str
    notes: Sequence[str]
    skipped: Sequence[str]


def load_data(config: Config, side: int, device: torch.device) -> Data:
    """The data that the settings name, images of `side` pixels. Raises UserError, naming file and reason."""
    notes: list[str] = []
    skipped: list[str] = []
    if config.data == SYNTHETIC:
        classes, sets = _synthetic(config, side)
    else:
        classes, sets = _folder(Path(config.data), side, config, notes, skipped)
    sha256 = sha256_of(sets, classes)
    for name, share in (("test", config.test_fraction), ("val", config.val_fraction)):
        if name not in sets:
            sets["train"], sets[name] = hold_out_by_class(sets["train"], share, config.seed)
    notes += split_notes(sets, classes)
    train, val, test = (sets[name].to(device) for name in ("train", "val", "test"))
    return Data(classes, train, val, test, sha256, notes, skipped)


def training_loader(
    data: Data,
    preprocessing: Preprocessing,
    config: Config,
    accelerator: Accelerator,
    target: ImageSet | None = None,
) -> Loader[Batch]:
    """Shuffled, augmented, mixed batches; with a target, each followed by as many of its images, without labels."""
    table = lookup_table(preprocessing.mean, preprocessing.std).to(accelerator.device, accelerator.dtype)
    view = partial(training_view, preprocessing=preprocessing, table=table, config=config)
    num, num_classes = len(data.train), len(data.classes)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Batch:
        targets = F.one_hot(labels, num_classes).float()
        # With fixed views an image has few of them, which every draw of it shares.
        number, turn = (samples % num, epoch % config.num_views) if config.num_views else (samples, epoch)
        images = view(pixels, rows, number, turn)
        if config.mixes:
            images, targets = mix(images, targets, samples, epoch, config)
        if target is not None:
            images = with_target(images, target, samples, epoch, config.seed, view)
        return images, targets

    order = training_order(data, config, accelerator.world)
    return batches(data.train, order, make, accelerator, config.workers)


def with_target(
    images: Tensor, target: ImageSet, samples: Tensor, epoch: int, seed: int, view: Callable[..., Tensor]
) -> Tensor:
    """A batch followed by a random target image for each of its own: [N, 3, S, S] → [2N, 3, S, S].

    samples: int64 [N], of the batch. view: what becomes of target images, from pixels, rows, samples and epoch.
    """
    rows = randomness.uniform_integers(seed, epoch, samples, "target", (len(target),))[:, 0]
    pixels = target.pixels
    if pixels is None:
        pixels = torch.from_numpy(target.load(rows.tolist())).to(images.device)
        rows = torch.arange(len(rows), device=images.device)
    views = view(pixels, rows, samples, epoch)
    return torch.cat([images, views]).contiguous(memory_format=torch.channels_last)


def evaluation_loader(
    images: ImageSet, preprocessing: Preprocessing, config: Config, accelerator: Accelerator, world: World
) -> Loader[Views]:
    """All images of a set once, in their order, as they are, and mirrored; shared among the ranks of `world`."""
    order = Order(len(images), config.batch_size, training=False, world=world)
    table = lookup_table(preprocessing.mean, preprocessing.std).to(accelerator.device, accelerator.dtype)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Views:
        view = plain_view(pixels[rows], preprocessing, table)
        return views_of(view, flip=config.test_flip, shift=False), labels

    return batches(images, order, make, accelerator, config.workers)


def training_order(data: Data, config: Config, world: World) -> Order:
    """The order of samples in training, by --balance."""
    if config.balance == "sampler":
        labels = torch.from_numpy(data.train.labels)
        return Balanced(len(data.train), config.batch_size, config.seed, world=world, labels=labels)
    return Order(len(data.train), config.batch_size, config.seed, world=world)


@dataclass(frozen=True)
class Balanced(Order):
    """An order that draws from each class alike, a rare one's images several times an epoch.

    Sample `row + copy * num_samples` is draw number `copy` of the image in this row, so each draw has random choices of
    its own.
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


def class_weights(labels: NDArray[np.int64], num_classes: int) -> Tensor:
    """Float32 [num_classes], inverse to how often a class is, with a mean of 1 over these labels; 0 for none."""
    counts = torch.from_numpy(np.bincount(labels, minlength=num_classes))
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (present * counts.clamp(min=1)), 0.0).float()


def _synthetic(config: Config, side: int) -> tuple[Sequence[str], dict[str, ImageSet]]:
    """Generated images of the target domain: `num_synthetic` for training and validation, others for the test."""
    num = config.num_synthetic + NUM_SYNTHETIC_TEST
    pixels, labels = draw_images(num, config.seed, side, TARGET_CLASSES, "evening")
    parts = {"train": slice(NUM_SYNTHETIC_TEST, None), "test": slice(NUM_SYNTHETIC_TEST)}
    return TARGET_CLASSES, {name: from_pixels(pixels[part], labels[part]) for name, part in parts.items()}


def _folder(
    root: Path, side: int, config: Config, notes: list[str], skipped: list[str]
) -> tuple[Sequence[str], dict[str, ImageSet]]:
    """The sets that a folder itself has; adds to notes, and to the images that were skipped."""
    folders, unused = find_splits(root)
    notes += unused
    if "val" in folders and "test" not in folders:
        folders["test"] = folders.pop("val")
    classes = list_classes(folders["train"]).classes
    listings = {name: list_classes(path, None if name == "train" else classes) for name, path in folders.items()}
    resident = is_resident(sum(len(listing.paths) for listing in listings.values()), side, config.resident)
    sets = {}
    for name, listing in listings.items():
        notes += listing.notes
        sets[name], faults = from_listing(
            listing, side, resident=resident, threads=max(2, config.workers), on_fault=config.on_fault
        )
        skipped += [fault.removeprefix(f"{root}/") for fault in faults]
    return classes, sets
