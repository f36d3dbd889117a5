"""Sets of images for training and evaluation: resident (one uint8 tensor) or streamed (files decoded by workers).

Both kinds give the same batches to the bit, because everything random is a function of (seed, epoch, sample).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.accelerator import Accelerator
from core.data import BatchLoader, Loader, MappedLoader, Order, StreamLoader
from core.errors import UserError
from core.text_files import open_regular
from core.vision.decoding import MAX_FILE_BYTES, center_square, decode, decode_bytes, load_squares
from core.vision.folders import Listing
from core.vision.splitting import held_out_rows, held_out_rows_by_class, sha256_of_images, sha256_of_sets

B = TypeVar("B")
# A project's batch from: pixels uint8 [M, S, S, 3]; int64 [N] each: rows of pixels, numbers of samples, labels; epoch.
MakeBatch = Callable[[Tensor, Tensor, Tensor, Tensor, int], B]

_RESIDENT_BYTES = 4 << 30
_NUM_FOR_STATISTICS = 5_000
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class ImageSet:
    """Square images of one purpose.

    labels: int64 [N]. size: side in pixels. pixels: uint8 [N, size, size, C] where the set is resident; else `paths`
    are decoded when needed. digests: bytes [N], equal where decoded pixels are equal. sha256: of the files (or pixels)
    and labels, before any splitting.
    """

    labels: NDArray[np.int64]
    size: int
    pixels: Tensor | None = None
    paths: Sequence[Path] = ()
    digests: NDArray[np.bytes_] | None = None
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "ImageSet":
        """A part of a set."""
        return replace(
            self,
            labels=self.labels[rows],
            pixels=None if self.pixels is None else self.pixels[torch.from_numpy(rows)],
            paths=[self.paths[int(row)] for row in rows] if self.paths else (),
            digests=None if self.digests is None else self.digests[rows],
        )

    def to(self, device: torch.device) -> "ImageSet":
        """The set with its pixels on a device."""
        return replace(self, pixels=None if self.pixels is None else self.pixels.to(device))

    def load(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Some images as uint8 [len(rows), size, size, C], on the CPU."""
        if self.pixels is not None:
            return np.asarray(self.pixels[torch.tensor(rows, dtype=torch.int64)].cpu())
        return load_squares([self.paths[int(row)] for row in rows], self.size)

    def count_copies(self, other: "ImageSet") -> int:
        """How many of the images of `other` have the very pixels of one in this set."""
        if self.digests is None or other.digests is None:
            return 0
        return int(np.isin(other.digests, self.digests).sum())


def from_pixels(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageSet:
    """A resident set from uint8 [N, S, S, C] and int64 [N]."""
    digests = np.array([_digest(image) for image in pixels], dtype=f"S{2 * _DIGEST_BYTES}")
    return ImageSet(labels, pixels.shape[1], torch.from_numpy(pixels), (), digests, sha256_of_images(digests, labels))


def from_listing(
    listing: Listing, size: int, *, resident: bool, threads: int = 2, on_fault: Literal["stop", "skip"] = "stop"
) -> tuple[ImageSet, list[str]]:
    """A folder's images as a set of squares, and what is wrong with those that were skipped.

    Every file is read and decoded once, held or not, so that a broken one is known before any work begins. Raises
    UserError for the first broken one, unless they are to be skipped.
    """
    num = len(listing.paths)
    pixels = np.empty((num if resident else 0, size, size, 3), dtype=np.uint8)
    digests = np.zeros(num, dtype=f"S{2 * _DIGEST_BYTES}")

    def load(row: int) -> tuple[str, str]:
        """The file's SHA-256 and what is wrong with it."""
        path = listing.paths[row]
        try:
            content = _content(path)
            image = center_square(decode_bytes(content, path), size)
        except UserError as error:
            if on_fault == "stop":
                raise
            return "", str(error).removeprefix("not a readable image: ").rpartition(";")[0]
        digests[row] = _digest(image)
        if resident:
            pixels[row] = image
        return hashlib.sha256(content).hexdigest(), ""

    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without holding the interpreter's lock
        loaded = list(pool.map(load, range(num)))
    rows = np.asarray([row for row, (_, fault) in enumerate(loaded) if not fault], dtype=np.int64)
    faults = [fault for _, fault in loaded if fault]
    sha256 = sha256_of_images(np.asarray([loaded[row][0] for row in rows], dtype="S64"), listing.labels[rows])
    images = ImageSet(
        listing.labels, size, torch.from_numpy(pixels) if resident else None, listing.paths, digests, sha256
    )
    return (images if len(rows) == num else images.take(rows)), faults


def is_resident(num: int, size: int, setting: Literal["auto", "yes", "no"]) -> bool:
    """Whether so many images are to be held in memory."""
    return setting == "yes" or (setting == "auto" and num * size**2 * 3 <= _RESIDENT_BYTES)


def hold_out(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """A set without a random share of all images, and that share; each class keeps at least one image."""
    kept, off = held_out_rows(images.labels, share, seed)
    return images.take(kept), images.take(off)


def hold_out_by_class(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """A set without a random share of each class, and that share; each class keeps at least one image."""
    kept, off = held_out_rows_by_class(images.labels, share, seed)
    return images.take(kept), images.take(off)


def statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of values in [0, 1], of at most 10,000 of the images."""
    sample = images.load(range(0, len(images), max(1, len(images) // _NUM_FOR_STATISTICS))) / 255.0
    mean = tuple(round(float(value), 4) for value in sample.mean(axis=(0, 1, 2)))
    return mean, tuple(round(max(float(value), 1e-3), 4) for value in sample.std(axis=(0, 1, 2)))


def sha256_of(sets: Mapping[str, ImageSet], classes: Sequence[str]) -> str:
    """The SHA-256 of a data set before it is split: classes, and by split name, files (or pixels) and labels."""
    return sha256_of_sets({name: images.sha256 for name, images in sets.items()}, classes)


def split_notes(sets: Mapping[str, ImageSet], classes: Sequence[str]) -> list[str]:
    """What a user should know of a split: classes that val or test lack, and images that are in train too.

    Raises UserError for a class without training images.
    """
    notes = []
    for name, images in sets.items():
        missing = [text for label, text in enumerate(classes) if label not in set(images.labels.tolist())]
        if missing and name == "train":
            raise UserError("a class without training images", ", ".join(missing), "add images of it")
        if missing and len(images):
            notes.append(f"{name} has no images of {', '.join(missing)}: its accuracy is of the other classes")
        copies = 0 if name == "train" else sets["train"].count_copies(images)
        if copies:
            notes.append(f"{copies:,} of {len(images):,} images of {name} are in train too, pixel by pixel")
    return notes


def batches(
    images: ImageSet, order: Order, make: MakeBatch[B], accelerator: Accelerator, workers: int = 0
) -> Loader[B]:
    """Batches of `make(pixels, rows of pixels, samples, labels, epoch)`, resident or streamed.

    Sample number `row + k * len(images)` is the image in this row; an order may draw an image several times an epoch.
    """
    device, num = accelerator.device, len(images)
    if images.pixels is not None:
        pixels, all_labels = images.pixels, torch.from_numpy(images.labels).to(device)

        def make_batch(samples: Tensor, epoch: int) -> B:
            samples = samples.to(device, non_blocking=True)
            rows = samples % num
            return make(pixels, rows, samples, all_labels[rows], epoch)

        return BatchLoader(make_batch, order)
    streamed = StreamLoader(_Squares(images), order, workers=workers, pin_memory=device.type == "cuda")

    def finish(batch: tuple[Tensor, Tensor, Tensor], epoch: int) -> B:
        pixels, labels, samples = accelerator.to_device(batch)
        return make(pixels, torch.arange(len(pixels), device=device), samples, labels, epoch)

    return MappedLoader(streamed, finish)


class _Squares:
    """A streamed set as a source for the loader's workers: (uint8 square, label, sample)."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int, random: np.random.Generator) -> Any:
        """Sample `index`; the random choices are made for the whole batch on the device."""
        row = index % len(self.images)
        image = center_square(decode(self.images.paths[row]), self.images.size)
        return image.copy(), int(self.images.labels[row]), index

    def name(self, index: int) -> str:
        """The path of the sample's image."""
        return str(self.images.paths[index % len(self.images)])


def _content(path: Path) -> bytes:
    """A file's bytes. Raises UserError, naming it."""
    try:
        with open_regular(path, MAX_FILE_BYTES) as file:
            return file.read()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise UserError("not a readable image", f"{path} ({reason})", "replace or remove it") from error


def _digest(image: NDArray[np.uint8]) -> str:
    """A digest of an image's pixels, hexadecimal."""
    return hashlib.blake2b(image.tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
