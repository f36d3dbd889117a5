"""Photographs and style images, from folders or generated: random crops in batches, and photographs held out.

A set that fits into memory is one uint8 tensor on the device, a larger one is decoded by workers. Where a crop is taken
is a function of (seed, epoch, sample), so both give the very same batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import randomness
from core.accelerator import Accelerator
from core.data import Loader, Order
from core.errors import UserError
from core.vision.decoding import center_square, decode, load_squares
from core.vision.folders import find_splits, list_images
from core.vision.image_set import ImageSet, batches, from_listing, from_pixels, is_resident, sha256_of
from projects.style import synthetic
from projects.style.config import STEPS_PER_EPOCH_OF_OPTIMIZE, SYNTHETIC, Config
from projects.style.style_images import read_styles, resize, sha256_of_pixels

Batch = tuple[Tensor, Tensor]  # images float32 [N, 3, S, S] in [0, 1]; each one's style, int64 [N]


@dataclass(frozen=True)
class Style:
    """A style image: its name, and float32 [1, 3, H, W] in [0, 1]."""

    name: str
    image: Tensor


@dataclass(frozen=True)
class Data:
    """What a training needs.

    loader: of batches. held_out: photographs float32 [M, 3, S, S] in [0, 1], or the one of optimize. num_train:
    photographs to train on. sha256: of all photographs. notes: what a user should know, a line each.
    """

    loader: Loader[Batch]
    held_out: Tensor
    styles: Sequence[Style]
    num_train: int
    sha256: str
    notes: Sequence[str] = ()


def load_data(config: Config, accelerator: Accelerator) -> Data:
    """The photographs and styles that the settings name. Raises UserError, naming file and reason."""
    styles = load_styles(config, accelerator.device)
    if config.method == "optimize":
        photograph = _load_photograph(config).to(accelerator.device)
        repeated = Repeated((photograph, torch.zeros(1, dtype=torch.int64, device=accelerator.device)))
        return Data(repeated, photograph, styles, num_train=1, sha256=image_sha256(photograph))
    load = _generate_photographs if config.data == SYNTHETIC else _read_photographs
    train, held_out, sha256, notes = load(config)
    loader = training_loader(train.to(accelerator.device), len(styles), config, accelerator)
    return Data(loader, as_images(held_out.to(accelerator.device)), styles, len(train), sha256, notes)


def load_styles(config: Config, device: torch.device) -> Sequence[Style]:
    """The style images, reduced to `--style-size`. Raises UserError for equal names and for too many."""
    return [Style(name, to_image(pixels).to(device)) for name, pixels in read_styles(config)]


def training_loader(train: ImageSet, num_styles: int, config: Config, accelerator: Accelerator) -> Loader[Batch]:
    """Random crops, mirrored or not; the styles take turns in a batch, from a random one on."""
    order = Order(len(train) * config.crops, config.batch_size, config.seed, world=accelerator.world)
    num_places = train.size - config.crop_size + 1  # of a crop, along each side

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, _: Tensor, epoch: int) -> Batch:
        limits = (num_places, num_places, 2)
        top, left, flip = randomness.uniform_integers(config.seed, epoch, samples, "crop", limits).unbind(1)
        first = randomness.uniform_integers(config.seed, epoch, samples[:1], "style", (num_styles,))[0]
        styles = (torch.arange(len(samples), device=samples.device) + first) % num_styles
        return crops(pixels, rows, top, left, flip, config.crop_size), styles

    return batches(train, order, make, accelerator, config.workers)


def crops(pixels: Tensor, rows: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crops of some rows of uint8 [M, S, S, 3], flipped where flip is 1: float32 [N, 3, size, size] in [0, 1].

    rows, top, left, flip: int64 [N].
    """
    line = torch.arange(size, device=pixels.device)
    y = top[:, None] + line
    x = left[:, None] + torch.where(flip[:, None] == 1, size - 1 - line, line)
    return as_images(pixels[rows[:, None, None], y[:, :, None], x[:, None, :]])


class Repeated:
    """The loader of optimize: one batch, again and again."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return STEPS_PER_EPOCH_OF_OPTIMIZE

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The rest of an epoch from batch number `start` on."""
        return iter([self.batch] * (len(self) - start))


def _generate_photographs(config: Config) -> tuple[ImageSet, Tensor, str, Sequence[str]]:
    """Generated photographs to train on; held-out ones uint8 [M, S, S, 3]; the SHA-256 of the former; no notes."""
    num = config.num_synthetic + config.num_held_out
    photographs = synthetic.draw_landscapes(num, config.seed, config.image_size)
    train, rest = photographs[: config.num_synthetic], photographs[config.num_synthetic :]
    images = from_pixels(train, np.zeros(len(train), dtype=np.int64))
    held_out = np.stack([center_square(image, config.eval_size) for image in rest])
    return images, torch.from_numpy(held_out), sha256_of({"train": images}, ()), ()


def _read_photographs(config: Config) -> tuple[ImageSet, Tensor, str, Sequence[str]]:
    """A folder's photographs to train on; held-out ones uint8 [M, S, S, 3]; the SHA-256 of all; notes."""
    folders, notes = find_splits(Path(config.data))
    sets: dict[str, ImageSet] = {}
    for name in ("train", "val"):
        if name in folders:
            listing = list_images(folders[name])
            resident = name == "train" and is_resident(len(listing.paths), config.image_size, config.resident)
            images, faults = from_listing(listing, config.image_size, resident=resident, on_fault=config.on_fault)
            sets[name] = images
            notes += [*listing.notes, *(f"left out: {fault}" for fault in faults)]
    train, held_out = hold_out(sets, config)
    if num_copies := train.count_copies(held_out):
        notes.append(f"{num_copies:,} of {len(held_out):,} held-out photographs are trained on too, pixel by pixel")
    return train, torch.from_numpy(load_squares(held_out.paths, config.eval_size)), sha256_of(sets, ()), notes


def hold_out(sets: Mapping[str, ImageSet], config: Config) -> tuple[ImageSet, ImageSet]:
    """Photographs to train on, and held-out ones: some of val/ where there is one, else of all, chosen by the seed."""
    train, others = sets["train"], sets.get("val", sets["train"])
    chosen = np.sort(randomness.permutation(config.seed, 0, len(others)).numpy()[: config.num_held_out])
    held_out = others.take(chosen)
    if "val" not in sets:
        train = train.take(np.setdiff1d(np.arange(len(train)), chosen))
    if not len(train) or not len(held_out):
        where = f"--data {config.data}, {len(others)} in all"
        raise UserError("no photographs left to train on", where, "add photographs, or lower --num-held-out")
    return train, held_out


def _load_photograph(config: Config) -> Tensor:
    """The photograph of optimize, float32 [1, 3, H, W] in [0, 1], its shorter side `--image-size`."""
    if config.data == SYNTHETIC:
        return to_image(synthetic.draw_landscapes(1, config.seed, config.image_size)[0])
    path = Path(config.data)
    return to_image(resize(decode(path), config.image_size, path))


def as_images(pixels: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] → float32 [N, 3, H, W] in [0, 1], channels_last."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def to_image(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] → float32 [1, 3, H, W] in [0, 1]."""
    return as_images(torch.from_numpy(pixels.copy())[None])


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """float32 [1, 3, H, W] in [0, 1] → uint8 [H, W, 3]."""
    return np.asarray((image[0].detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu())


def image_sha256(image: Tensor) -> str:
    """The SHA-256 of an image's bytes and size, by which a resumed run knows its data; [1, 3, H, W] in [0, 1]."""
    return sha256_of_pixels(to_pixels(image))
