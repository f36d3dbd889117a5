"""Photographs and style pictures: from a folder or drawn; random crops in batches, and whole ones that are held out.

A set that fits into memory is one uint8 tensor on the device, a larger one is decoded by workers. Where and how a crop
is taken is a function of (seed, epoch, sample), so both give the very same batches.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core import images, randomness
from core.accelerator import Accelerator
from core.data import BatchLoader, Loader, MappedLoader, Order, StreamLoader
from core.errors import UserError
from projects.style import synthetic
from projects.style.config import MAX_STYLES, STEPS_OF_AN_EPOCH, SYNTHETIC, Config

Batch = tuple[Tensor, Tensor]  # images [N, 3, S, S] in [0, 1]; numbers of styles int64 [N]
RESIDENT_BYTES = 4 << 30


@dataclass(frozen=True)
class Photographs:
    """Squares of one size: resident as uint8 [N, S, S, 3], or paths that are decoded when needed."""

    size: int
    pixels: Tensor | None = None
    paths: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.paths) if self.pixels is None else len(self.pixels)


@dataclass(frozen=True)
class Style:
    """A style picture: its name, and float32 [1, 3, H, W] in [0, 1]."""

    name: str
    image: Tensor


@dataclass(frozen=True)
class Data:
    """Photographs to train on; held-out ones, uint8 [M, S, S, 3]; the styles."""

    train: Photographs
    held_out: Tensor
    styles: Sequence[Style]


def load_data(config: Config, device: torch.device) -> Data:
    """What the settings name, resident photographs on the device. Raises UserError, naming file and reason."""
    styles = [Style(style.name, style.image.to(device)) for style in load_styles(config)]
    if config.data == SYNTHETIC:
        drawn = synthetic.draw_landscapes(config.num_synthetic + config.num_held_out, config.seed, config.image_size)
        train = Photographs(config.image_size, torch.from_numpy(drawn[: config.num_synthetic]).to(device))
        held_out = [images.square(picture, config.eval_size) for picture in drawn[config.num_synthetic :]]
        return Data(train, torch.from_numpy(np.stack(held_out)), styles)
    paths, held_out_paths = split(Path(config.data), config)
    train = Photographs(config.image_size, paths=paths)
    if len(paths) * 3 * config.image_size**2 <= RESIDENT_BYTES:
        pixels = torch.from_numpy(images.load_squares(paths, config.image_size))
        train = Photographs(config.image_size, pixels.to(device))
    return Data(train, torch.from_numpy(images.load_squares(held_out_paths, config.eval_size)), styles)


def split(root: Path, config: Config) -> tuple[Sequence[Path], Sequence[Path]]:
    """Photographs for training, and those held out: some of val/ where there is one, else some of all, by the seed."""
    paths = images.below(root / "train" if (root / "train").is_dir() else root)
    others = images.below(root / "val") if (root / "train").is_dir() and (root / "val").is_dir() else paths
    order = randomness.permutation(config.seed, 0, len(others)).tolist()
    held_out = [others[k] for k in sorted(order[: config.num_held_out])]
    left_out = set(held_out)
    rest = [path for path in paths if path not in left_out]
    if not rest:
        where = f"--data {config.data}, {len(paths)} in all"
        raise UserError("no photographs left to train on", where, "add photographs, or lower --num-held-out")
    return rest, held_out


def load_styles(config: Config) -> Sequence[Style]:
    """The style pictures, at the size that the settings give their strokes."""
    styles: list[Style] = []
    for given in config.styles():
        if given == SYNTHETIC:
            kinds = synthetic.STYLES if config.method == "feedforward" else synthetic.STYLES[:1]
            drawn = [(name, synthetic.draw_style(name, config.seed, config.style_size)) for name in kinds]
        else:
            paths = images.below(Path(given)) if Path(given).is_dir() else [Path(given)]
            drawn = [(path.stem, resized(images.decode(path), config.style_size)) for path in paths]
        styles += [Style(name, to_image(pixels)) for name, pixels in drawn]
    names = [style.name for style in styles]
    if len(set(names)) < len(names):
        raise UserError("two styles of one name", f"--style {config.style}", "rename a picture")
    if len(names) > MAX_STYLES:
        raise UserError("too many styles", f"--style {config.style}: {len(names)}", f"give at most {MAX_STYLES}")
    return styles


def training_loader(data: Data, config: Config, accelerator: Accelerator) -> Loader[Batch]:
    """Random crops, mirrored or not; each batch has all styles alike, as far as it goes."""
    train, device, num_styles = data.train, accelerator.device, len(data.styles)
    order = Order(len(train) * config.crops, config.batch_size, config.seed, world=accelerator.world)
    room = train.size - config.crop_size + 1

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, epoch: int) -> Batch:
        top, left, flip = randomness.uniform_integers(config.seed, epoch, samples, "crop", (room, room, 2)).unbind(1)
        first = randomness.uniform_integers(config.seed, epoch, samples[:1], "style", (num_styles,))[0]
        styles = (torch.arange(len(samples), device=samples.device) + first) % num_styles
        return crops(pixels, rows, top, left, flip, config.crop_size), styles

    if train.pixels is not None:
        pixels = train.pixels

        def make_batch(samples: Tensor, epoch: int) -> Batch:
            samples = samples.to(device, non_blocking=True)
            return make(pixels, samples % len(pixels), samples, epoch)

        return BatchLoader(make_batch, order)
    streamed = StreamLoader(Squares(train), order, workers=config.workers, pin_memory=device.type == "cuda")

    def finish(batch: tuple[Tensor, Tensor], epoch: int) -> Batch:
        pixels, samples = accelerator.to_device(batch)
        return make(pixels, torch.arange(len(pixels), device=device), samples, epoch)

    return MappedLoader(streamed, finish)


def crops(pixels: Tensor, rows: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int) -> Tensor:
    """Squares cut out of uint8 [M, S, S, 3] at int64 [N] places, flipped where flip is 1: [N, 3, size, size]."""
    line = torch.arange(size, device=pixels.device)
    y = top[:, None] + line
    x = left[:, None] + torch.where(flip[:, None] == 1, size - 1 - line, line)
    return as_images(pixels[rows[:, None, None], y[:, :, None], x[:, None, :]])


class Squares:
    """Photographs that are decoded when asked for, a source for the loader's workers: (uint8 square, sample)."""

    def __init__(self, photographs: Photographs) -> None:
        self.photographs = photographs

    def __len__(self) -> int:
        return len(self.photographs)

    def load(self, index: int, random: np.random.Generator) -> Any:
        """The photograph that sample `index` is a crop of; where to crop is chosen for the whole batch."""
        return images.square(images.decode(self.path(index)), self.photographs.size).copy(), index

    def name(self, index: int) -> str:
        """Its path."""
        return str(self.path(index))

    def path(self, index: int) -> Path:
        """The photograph of a sample; each has several."""
        return self.photographs.paths[index % len(self)]


class Repeated:
    """The loader of optimize: one batch, again and again."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return STEPS_OF_AN_EPOCH

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """What is left of an epoch from number `start` on."""
        return iter([self.batch] * (len(self) - start))


def load_content(config: Config) -> Tensor:
    """The photograph of optimize, float32 [1, 3, H, W], its shorter side as the settings say."""
    if config.data == SYNTHETIC:
        return to_image(synthetic.draw_landscapes(1, config.seed, config.image_size)[0])
    return to_image(resized(images.decode(Path(config.data)), config.image_size))


def resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture with its shorter side at `size`, uint8 [H, W, 3]. Raises UserError for one that becomes too long."""
    height, width = (max(1, round(side * size / min(pixels.shape[:2]))) for side in pixels.shape[:2])
    if height * width > images.MAX_PIXELS:
        raise UserError("a picture would become too large", f"{width}×{height} pixels", "give one that is less long")
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def as_images(pixels: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] → float32 [N, 3, H, W] in [0, 1], channels_last."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def to_image(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] → float32 [1, 3, H, W] in [0, 1]."""
    return as_images(torch.from_numpy(pixels.copy())[None])


def digest(images: Tensor) -> str:
    """The SHA-256 of pictures' bytes, by which a resumed run knows its data; float32 [N, 3, H, W] in [0, 1]."""
    return hashlib.sha256(b"".join(to_pixels(image).tobytes() for image in torch.split(images, 1))).hexdigest()


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """float32 [1, 3, H, W] in [0, 1] → uint8 [H, W, 3]."""
    return np.asarray((image[0].detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu())
