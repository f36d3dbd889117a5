"""The classifier's images: CIFAR-10, MNIST, digits, generated ones, or a folder; split, augmented, served in batches.

Small sets are one uint8 tensor on the device. Random choices are a function of (seed, epoch, sample), so a folder
that streams through workers gives the very same batches. CIFAR-10: Krizhevsky 2009, "Learning Multiple Layers of
Features from Tiny Images", https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core import randomness
from core.accelerator import Accelerator
from core.data import Loader, Order
from core.distributed import World
from core.download import RemoteFile, fetch
from core.errors import UserError
from core.vision.folders import find_splits, list_classes
from core.vision.image_set import (
    ImageSet,
    batches,
    from_listing,
    from_pixels,
    hold_out,
    is_resident,
    sha256_of,
    split_notes,
    statistics,
)
from cuda_ext import augment, lookup_table, normalize
from projects.cifar10.config import Config
from projects.cifar10.mnist import load_digits, load_mnist

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
_EPOCH_IMAGES = 20_000  # with --repeats 0 an epoch shows each of fewer images several times
_MOST_EVALUATED = 500  # in a batch on a CPU, where more are no faster and want memory
_GPU_EVALUATION_PIXELS = 2048 * 32 * 32  # of a batch
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Data:
    """The three sets; mean and standard deviation per channel of the training images, of values in [0, 1].

    notes: what a user should know of the data, a line each.
    """

    classes: Sequence[str]
    train: ImageSet
    val: ImageSet
    test: ImageSet | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    notes: Sequence[str]


def load_data(config: Config, device: torch.device) -> Data:
    """The data that the settings name, resident sets on the device. Raises UserError, naming file and reason."""
    notes: list[str] = []
    if config.data == "synthetic":
        classes, sets = _synthetic(config)
    elif config.data == "cifar10":
        classes, sets = _cifar10()
    elif config.data == "digits":
        classes, sets = load_digits(config.image_size)
    elif config.data in ("mnist", "fashion-mnist"):
        classes, sets = load_mnist(config.data, config.image_size)
    else:
        classes, sets, notes = _folder(Path(config.data), config)
    sha256 = sha256_of(sets, classes)
    if "val" not in sets:
        sets["train"], sets["val"] = hold_out(sets["train"], config.val_fraction, config.seed)
    notes += split_notes(sets, classes)
    mean, std = statistics(sets["train"])
    train, val, test = (sets[name].to(device) if name in sets else None for name in ("train", "val", "test"))
    assert train is not None
    assert val is not None
    return Data(classes, train, val, test, mean, std, sha256, notes)


def training_loader(data: Data, config: Config, accelerator: Accelerator) -> Loader[Batch]:
    """Shuffled, augmented batches. An image is mirrored in every other epoch, so that two epochs show both sides of it
    (Jordan 2024, arXiv 2404.00498, section 3.6)."""
    num = len(data.train) * (config.repeats or max(1, _EPOCH_IMAGES // len(data.train)))
    order = Order(num, config.batch_size, config.seed, world=accelerator.world)
    size, padding = config.image_size, config.crop_padding
    highs = (2 * padding + 1, 2 * padding + 1, 1, size, size)
    table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)
    everything = torch.arange(num, device=accelerator.device)
    first_flips = randomness.uniform_integers(config.seed, 0, everything, "flip", (2,))[:, 0]

    @lru_cache(maxsize=1)
    def choices(epoch: int) -> Tensor:
        """The random choices of all samples in an epoch: made at once, since each call costs a GPU's host time."""
        chosen = randomness.uniform_integers(config.seed, epoch, everything, "augment", highs)
        if config.flip:
            chosen[:, 2] = (first_flips + epoch) % 2
        return chosen

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Batch:
        return augment(pixels, rows, choices(epoch)[samples], table, padding, config.cutout), labels

    return batches(data.train, order, make, accelerator, config.workers)


def evaluation_loader(
    images: ImageSet, data: Data, config: Config, accelerator: Accelerator, world: World
) -> Loader[Batch]:
    """All images of a set once, in their order, as they are; shared among the ranks of `world`."""
    size = min(2 * config.batch_size, _MOST_EVALUATED)
    if accelerator.device.type == "cuda":  # small batches would take Python longer than the GPU
        size = max(size, _GPU_EVALUATION_PIXELS // config.image_size**2)
    order = Order(len(images), size, training=False, world=world)
    table = lookup_table(data.mean, data.std).to(accelerator.device, accelerator.dtype)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Batch:
        return normalize(pixels if len(rows) == len(pixels) else pixels[rows], table), labels

    return batches(images, order, make, accelerator, config.workers)


def _synthetic(config: Config) -> tuple[Sequence[str], dict[str, ImageSet]]:
    """Generated images: `num_synthetic` for training and validation, a sixth as many for test."""
    from projects.cifar10.outlines import CLASSES
    from projects.cifar10.synthetic import draw_images

    num_test = config.num_synthetic // 6
    pixels, labels = draw_images(config.num_synthetic + num_test, config.seed, config.image_size)
    train, test = (from_pixels(pixels[part], labels[part]) for part in (slice(num_test, None), slice(num_test)))
    return CLASSES, {"train": train, "test": test}


def _cifar10() -> tuple[Sequence[str], dict[str, ImageSet]]:
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
    return CIFAR10_CLASSES, {
        "train": read_records(train, 50_000),
        "test": read_records(parts["test_batch.bin"], 10_000),
    }


def read_records(content: bytes, num: int) -> ImageSet:
    """CIFAR-10 records as a set. Raises UserError for another length or a label over 9."""
    table = np.frombuffer(content, dtype=np.uint8)
    if len(table) != num * 3073 or table[::3073].max() > 9:
        raise UserError("not CIFAR-10 records", fetch(CIFAR10), f"they have {num} × 3073 bytes and labels of 0 to 9")
    rows = table.reshape(num, 3073)
    pixels = rows[:, 1:].reshape(num, 3, 32, 32).transpose(0, 2, 3, 1)
    return from_pixels(np.ascontiguousarray(pixels), rows[:, 0].astype(np.int64))


def _folder(root: Path, config: Config) -> tuple[Sequence[str], dict[str, ImageSet], list[str]]:
    """The folder's train, and its val and test where they exist; notes on what is not used."""
    folders, notes = find_splits(root)
    train = list_classes(folders.pop("train"))
    listings = {"train": train, **{name: list_classes(path, train.classes) for name, path in folders.items()}}
    resident = is_resident(sum(len(each.paths) for each in listings.values()), config.image_size, config.resident)
    sets = {}
    for name, listing in listings.items():
        notes += listing.notes
        sets[name], _ = from_listing(listing, config.image_size, resident=resident, threads=max(2, config.workers))
    return train.classes, sets, notes
