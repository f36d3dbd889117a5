"""The classifier's pictures: CIFAR-10, a generated set, or a folder; split, augmented and served in batches.

Small sets are one uint8 tensor on the device. Random choices are a function of (seed, epoch, sample), so a folder
that streams through workers gives the very same batches. CIFAR-10: Krizhevsky 2009, "Learning Multiple Layers of
Features from Tiny Images", https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import images, randomness
from core.accelerator import Accelerator
from core.data import BatchLoader, Loader, MappedLoader, Order, StreamLoader
from core.distributed import World
from core.download import RemoteFile, fetch
from core.errors import UserError
from cuda_ext import augment, lookup_table, normalize
from projects.cifar10.config import Config

Batch = tuple[Tensor, Tensor]  # images [N, 3, S, S], normalized; labels int64 [N]

CIFAR10 = RemoteFile(
    name="cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    urls=(
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
        "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ),
)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RESIDENT_BYTES = 4 << 30
NUM_FOR_STATISTICS = 5_000


@dataclass(frozen=True)
class Split:
    """Pictures of one purpose: resident as uint8 [N, S, S, 3], or paths that are decoded when needed."""

    labels: NDArray[np.int64]
    pixels: Tensor | None = None
    listing: images.Listing | None = None
    rows: NDArray[np.int64] | None = None  # this split's rows of the listing

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Split":
        """A part of a split."""
        if self.pixels is not None:
            return Split(self.labels[rows], self.pixels[torch.from_numpy(rows)])
        assert self.rows is not None
        return Split(self.labels[rows], listing=self.listing, rows=self.rows[rows])

    def to(self, device: torch.device) -> "Split":
        """The split with its pixels on a device."""
        return Split(self.labels, None if self.pixels is None else self.pixels.to(device), self.listing, self.rows)

    def load(self, rows: Sequence[int], size: int) -> NDArray[np.uint8]:
        """Some pictures as uint8 [len(rows), S, S, 3], on the CPU."""
        if self.pixels is not None:
            return np.asarray(self.pixels[torch.tensor(rows, dtype=torch.int64)].cpu())
        assert self.listing is not None
        assert self.rows is not None
        return images.load_squares([self.listing.paths[int(self.rows[row])] for row in rows], size)


@dataclass(frozen=True)
class Data:
    """The three splits; mean and standard deviation per channel of the training pictures, of values in [0, 1]."""

    classes: Sequence[str]
    train: Split
    val: Split
    test: Split | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_data(config: Config, device: torch.device) -> Data:
    """The data that the settings name, resident ones on the device. Raises UserError, naming file and reason."""
    if config.data == "synthetic":
        classes, train, val, test = synthetic(config)
    elif config.data == "cifar10":
        classes, train, val, test = cifar10()
    else:
        classes, train, val, test = folder(Path(config.data), config)
    if val is None:
        order = randomness.permutation(config.seed, 0, len(train)).numpy()
        num_val = max(1, round(config.val_fraction * len(train)))
        val, train = train.take(np.sort(order[:num_val])), train.take(np.sort(order[num_val:]))
    if not len(train):
        raise UserError("no pictures left to train on", f"--data {config.data}", "add pictures")
    sample = train.load(range(0, len(train), max(1, len(train) // NUM_FOR_STATISTICS)), config.image_size) / 255.0
    mean = tuple(round(float(value), 4) for value in sample.mean(axis=(0, 1, 2)))
    std = tuple(round(max(float(value), 1e-3), 4) for value in sample.std(axis=(0, 1, 2)))
    test = None if test is None else test.to(device)
    return Data(classes, train.to(device), val.to(device), test, mean, std)


def training_loader(data: Data, config: Config, accelerator: Accelerator) -> Loader[Batch]:
    """Shuffled, augmented batches."""
    order = Order(len(data.train), config.batch_size, config.seed, world=accelerator.world)
    size, padding = config.image_size, config.crop_padding
    highs = (2 * padding + 1, 2 * padding + 1, 2 if config.flip else 1, size, size)
    table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Batch:
        params = randomness.uniform_integers(config.seed, epoch, samples, "augment", highs)
        return augment(pixels, rows, params, table, padding, config.cutout), labels

    return loader(data.train, order, make, config, accelerator)


def evaluation_loader(
    split: Split, data: Data, config: Config, accelerator: Accelerator, world: World
) -> Loader[Batch]:
    """All pictures of a split once, in their order, as they are; shared among the ranks of `world`."""
    order = Order(len(split), 2 * config.batch_size, training=False, world=world)
    table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Batch:
        return normalize(pixels if len(rows) == len(pixels) else pixels[rows], table), labels

    return loader(split, order, make, config, accelerator)


def loader(
    split: Split,
    order: Order,
    make: Callable[[Tensor, Tensor, Tensor, Tensor, int], Batch],
    config: Config,
    accelerator: Accelerator,
) -> Loader[Batch]:
    """Batches of `make(pixels, rows of pixels, samples, labels, epoch)`, resident or streamed."""
    device = accelerator.device
    if split.pixels is not None:
        pixels, all_labels = split.pixels, torch.from_numpy(split.labels).to(device)

        def make_batch(samples: Tensor, epoch: int) -> Batch:
            samples = samples.to(device, non_blocking=True)
            return make(pixels, samples, samples, all_labels[samples], epoch)

        return BatchLoader(make_batch, order)
    assert split.listing is not None
    assert split.rows is not None
    source = images.Squares(split.listing, split.rows, config.image_size)
    streamed = StreamLoader(source, order, workers=config.workers, pin_memory=device.type == "cuda")

    def finish(batch: tuple[Tensor, Tensor, Tensor], epoch: int) -> Batch:
        pixels, labels, samples = accelerator.to_device(batch)
        rows = torch.arange(len(pixels), device=device)
        return make(pixels, rows, samples, labels, epoch)

    return MappedLoader(streamed, finish)


def synthetic(config: Config) -> tuple[Sequence[str], Split, Split | None, Split | None]:
    """Drawn pictures: `num_synthetic` for training and validation, a sixth as many for test."""
    from projects.cifar10.synthetic import CLASSES, draw_pictures

    num_test = config.num_synthetic // 6
    pixels, labels = draw_pictures(config.num_synthetic + num_test, config.seed, config.image_size)
    everything = Split(labels, torch.from_numpy(pixels))
    rows = np.arange(len(labels))
    return CLASSES, everything.take(rows[num_test:]), None, everything.take(rows[:num_test])


def cifar10() -> tuple[Sequence[str], Split, Split | None, Split | None]:
    """The original arrays, from the binary archive: records of a label byte and 3,072 bytes of color planes."""
    archive = fetch(CIFAR10)
    parts: dict[str, bytes] = {}
    with tarfile.open(archive) as file:  # members are read as streams; nothing is unpacked
        for member in file:
            if member.isfile() and member.name.endswith(".bin"):
                stream = file.extractfile(member)
                assert stream is not None
                parts[Path(member.name).name] = stream.read()
    train = b"".join(parts[f"data_batch_{number}.bin"] for number in range(1, 6))
    return CIFAR10_CLASSES, records(train, 50_000), None, records(parts["test_batch.bin"], 10_000)


def records(content: bytes, num: int) -> Split:
    """CIFAR-10 records as a split. Raises UserError for another length or a label over 9."""
    table = np.frombuffer(content, dtype=np.uint8)
    if len(table) != num * 3073 or table[::3073].max() > 9:
        raise UserError("not CIFAR-10 records", fetch(CIFAR10), f"they have {num} × 3073 bytes and labels of 0 to 9")
    rows = table.reshape(num, 3073)
    pixels = rows[:, 1:].reshape(num, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(rows[:, 0].astype(np.int64), torch.from_numpy(np.ascontiguousarray(pixels)))


def folder(root: Path, config: Config) -> tuple[Sequence[str], Split, Split | None, Split | None]:
    """ROOT/train, and ROOT/val and ROOT/test where they exist."""
    train = images.list_folder(root / "train")
    listings = {"train": train}
    for name in ("val", "test"):
        if (root / name).is_dir():
            listings[name] = images.list_folder(root / name, train.classes)
    num_bytes = sum(len(listing.paths) for listing in listings.values()) * config.image_size**2 * 3
    resident = config.resident == "yes" or (config.resident == "auto" and num_bytes <= RESIDENT_BYTES)
    splits = {name: from_listing(listing, config, resident) for name, listing in listings.items()}
    return train.classes, splits["train"], splits.get("val"), splits.get("test")


def from_listing(listing: images.Listing, config: Config, resident: bool) -> Split:
    """A split of a folder, decoded now or later."""
    if resident:
        pixels = images.load_squares(listing.paths, config.image_size, max(2, config.workers))
        return Split(listing.labels, torch.from_numpy(pixels))
    return Split(listing.labels, listing=listing, rows=np.arange(len(listing.labels)))
