"""The pictures: a folder or the drawn target domain, split into training, validation and test.

A folder is ROOT/train/CLASS/*, with ROOT/val and ROOT/test where there are such, or ROOT/CLASS/*. A part that has no
folder is cut off the training pictures by the seed, class by class; where only val/ or only test/ is there, it is the
test. Small sets are one uint8 tensor on the device; larger ones stay files.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import images, randomness
from core.errors import UserError
from projects.transfer.config import SYNTHETIC, Config
from projects.transfer.synthetic import TARGET_CLASSES, draw_pictures

RESIDENT_BYTES = 4 << 30
NUM_SYNTHETIC_TEST = 600
NUM_FOR_STATISTICS = 5_000


@dataclass(frozen=True)
class Split:
    """Pictures of one purpose: resident as uint8 [N, side, side, 3], or paths that are decoded when needed."""

    labels: NDArray[np.int64]
    side: int
    pixels: Tensor | None = None
    paths: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Split":
        """A part of a split."""
        pixels = None if self.pixels is None else self.pixels[torch.from_numpy(rows)]
        paths = [self.paths[int(row)] for row in rows] if self.paths else ()
        return Split(self.labels[rows], self.side, pixels, paths)

    def to(self, device: torch.device) -> "Split":
        """The split with its pixels on a device."""
        return replace(self, pixels=None if self.pixels is None else self.pixels.to(device))

    def load(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Some pictures as uint8 [len(rows), side, side, 3], on the CPU."""
        if self.pixels is not None:
            return np.asarray(self.pixels[torch.tensor(rows, dtype=torch.int64)].cpu())
        return images.load_squares([self.paths[int(row)] for row in rows], self.side)


@dataclass(frozen=True)
class Data:
    """The three splits, the classes, and the broken pictures that were left out, with what is wrong with each."""

    classes: Sequence[str]
    train: Split
    val: Split
    test: Split
    skipped: Sequence[str]

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of the training pictures, of values in [0, 1]."""
        sample = self.train.load(range(0, len(self.train), max(1, len(self.train) // NUM_FOR_STATISTICS))) / 255.0
        mean = tuple(round(float(value), 4) for value in sample.mean(axis=(0, 1, 2)))
        return mean, tuple(round(max(float(value), 1e-3), 4) for value in sample.std(axis=(0, 1, 2)))


def class_weights(labels: NDArray[np.int64], num_classes: int) -> Tensor:
    """Float32 [num_classes], inverse to how often a class is, with a mean of 1 over these labels; 0 for none."""
    counts = torch.from_numpy(np.bincount(labels, minlength=num_classes))
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (present * counts.clamp(min=1)), 0.0).float()


def load_data(config: Config, side: int, device: torch.device) -> Data:
    """The data that the settings name, pictures of `side` pixels. Raises UserError, naming file and reason."""
    if config.data == SYNTHETIC:
        pixels, labels = draw_pictures(
            config.num_synthetic + NUM_SYNTHETIC_TEST, config.seed, side, TARGET_CLASSES, "night"
        )
        drawn = Split(labels, side, torch.from_numpy(pixels))
        rows = np.arange(len(labels))
        parts = {"train": drawn.take(rows[NUM_SYNTHETIC_TEST:]), "test": drawn.take(rows[:NUM_SYNTHETIC_TEST])}
        classes: Sequence[str] = TARGET_CLASSES
        skipped: list[str] = []
    else:
        classes, parts, skipped = folder(Path(config.data), side, config)
    if "test" not in parts:
        parts["train"], parts["test"] = cut(parts["train"], config.test_fraction, config.seed)
    if "val" not in parts:
        parts["train"], parts["val"] = cut(parts["train"], config.val_fraction, config.seed)
    for label, name in enumerate(classes):
        if not (parts["train"].labels == label).any():
            raise UserError("a class without pictures to train on", f"{name} in {config.data}", "add pictures")
    train, val, test = (parts[name].to(device) for name in ("train", "val", "test"))
    return Data(classes, train, val, test, skipped)


def folder(root: Path, side: int, config: Config) -> tuple[Sequence[str], dict[str, Split], list[str]]:
    """The splits that a folder itself has, and the pictures left out."""
    if (root / "train").is_dir():
        listings = {"train": images.list_folder(root / "train")}
        for name in ("val", "test"):
            if (root / name).is_dir():
                listings[name] = images.list_folder(root / name, listings["train"].classes)
        if "val" in listings and "test" not in listings:
            listings["test"] = listings.pop("val")
    else:
        listings = {"train": images.list_folder(root)}
    resident = is_resident(sum(len(listing.paths) for listing in listings.values()), side, config)
    skipped: list[str] = []
    parts = {}
    for name, listing in listings.items():
        parts[name] = usable(listing, side, config, resident, skipped)
    return listings["train"].classes, parts, [text.removeprefix(f"{root}/") for text in skipped]


def is_resident(num: int, side: int, config: Config) -> bool:
    """Whether so many pictures are held in memory."""
    return config.resident == "yes" or (config.resident == "auto" and num * side**2 * 3 <= RESIDENT_BYTES)


def usable(listing: images.Listing, side: int, config: Config, resident: bool, skipped: list[str]) -> Split:
    """The pictures of a listing as a split; with --on-bad-image skip, broken ones go to `skipped` instead.

    To know them before training, all are decoded once, held or not.
    """
    threads = max(2, config.workers)
    split = Split(listing.labels, side, paths=listing.paths)
    if config.on_bad_image == "stop":
        if resident:
            return replace(split, pixels=torch.from_numpy(images.load_squares(listing.paths, side, threads)))
        return split
    pixels = np.empty((len(listing.paths) if resident else 0, side, side, 3), dtype=np.uint8)

    def attempt(row: int) -> str:
        try:
            square = images.square(images.decode(listing.paths[row]), side)
        except UserError as error:
            return str(error).removeprefix("not a readable picture: ").rpartition(";")[0]
        if resident:
            pixels[row] = square
        return ""

    with ThreadPoolExecutor(threads) as pool:
        reasons = list(pool.map(attempt, range(len(listing.paths))))
    skipped += [reason for reason in reasons if reason]
    good = np.asarray([row for row, reason in enumerate(reasons) if not reason], dtype=np.int64)
    return replace(split, pixels=torch.from_numpy(pixels) if resident else None).take(good)


def cut(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """A split without a share of each class, and that share."""
    off: list[int] = []
    for label in np.unique(split.labels):
        rows = np.flatnonzero(split.labels == label)
        order = randomness.permutation(seed, -1 - int(label), len(rows)).numpy()
        off += rows[order[: max(1, round(share * len(rows)))]].tolist()
    kept = np.setdiff1d(np.arange(len(split)), off)
    return split.take(kept), split.take(np.sort(np.asarray(off, dtype=np.int64)))
