"""What a stored image goes through on its way into the network, a batch at a time and on the device.

Every random choice is a function of (seed, epoch, sample). Random resized crops follow Szegedy et al. 2015 (arXiv
1409.4842), RandAugment Cubuk et al. 2020 (arXiv 1909.13719), mixup Zhang et al. 2018 (arXiv 1710.09412), cutmix Yun
et al. 2019 (arXiv 1905.04899).
"""

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core import randomness
from core.seeds import sample_generator
from cuda_ext import augment, crop_resize, normalize
from projects.transfer.config import Config

MAX_ASPECT = 4 / 3  # of a random part's sides
FINE = 1 << 16  # steps of a random fraction
SHIFT = 8  # light augmentation shifts by up to this part of the side


@dataclass(frozen=True)
class Preprocessing:
    """What images are brought to for the network: the square of `size` in the center of one of `side` pixels,
    normalized with mean and std (of values in [0, 1])."""

    size: int
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, size: int, crop: float, mean: Sequence[float], std: Sequence[float]) -> "Preprocessing":
        """From the size and the share that it is of the stored side."""
        return cls(size, stored_side(size, crop), tuple(mean), tuple(std))

    def center(self, pixels: Tensor) -> Tensor:
        """[..., side, side] → [..., size, size]."""
        start = (self.side - self.size) // 2
        return pixels[..., start : start + self.size, start : start + self.size]


def stored_side(size: int, crop: float) -> int:
    """The side that images are stored with, so that the middle `size` pixels are the share `crop` of it."""
    return round(size / crop)


def plain_view(pixels: Tensor, preprocessing: Preprocessing, table: Tensor) -> Tensor:
    """Stored images as evaluation sees them: uint8 [N, side, side, 3] → [N, 3, size, size]."""
    return preprocessing.center(normalize(pixels, table)).contiguous(memory_format=torch.channels_last)


def training_view(
    pixels: Tensor,
    rows: Tensor,
    samples: Tensor,
    epoch: int,
    preprocessing: Preprocessing,
    table: Tensor,
    config: Config,
) -> Tensor:
    """Augmented images: uint8 [M, side, side, 3], int64 rows and samples [N] → [N, 3, size, size]."""
    draw = partial(randomness.uniform_integers, config.seed, epoch, samples)
    if config.augment == "none":
        return plain_view(pixels[rows], preprocessing, table)
    if config.augment == "light":
        padding = preprocessing.side // SHIFT
        highs = (2 * padding + 1, 2 * padding + 1, 2, preprocessing.side, preprocessing.side)
        shifted = augment(pixels, rows, draw("augment", highs), table, padding, 0)
        return preprocessing.center(shifted).contiguous(memory_format=torch.channels_last)
    fractions = draw("part", (FINE,) * 7).float() / FINE
    boxes = random_boxes(fractions[:, :4], preprocessing.side, config.crop_area)
    contrast, brightness = ((2 * fractions[:, 5:] - 1) * config.jitter).unbind(1)
    if config.augment == "rand":
        operations = draw("operations", (len(OPERATIONS), 2) * config.rand_ops)
        pixels = rand_augment(pixels[rows].permute(0, 3, 1, 2), operations, config.rand_magnitude / 30)
        pixels, rows = pixels.permute(0, 2, 3, 1).contiguous(), torch.arange(len(rows), device=rows.device)
    num_bytes = pixels[0].numel()
    return crop_resize(
        pixels.flatten(),
        torch.arange(len(pixels), device=pixels.device) * num_bytes,
        torch.full((len(pixels), 2), preprocessing.side, device=pixels.device),
        rows,
        boxes,
        (preprocessing.size, preprocessing.size),
        table,
        flips=fractions[:, 4] < 0.5,
        colors=color_jitter(1 + contrast, brightness, preprocessing),
    )


def random_boxes(fractions: Tensor, side: int, smallest: float) -> Tensor:
    """A random part of each image: left, top, right, bottom in pixels, float32 [N, 4].

    fractions: [N, 4] in [0, 1), for area, aspect and place. smallest: share of the area of an image.
    """
    area = smallest + (1 - smallest) * fractions[:, 0]
    aspect = torch.exp((2 * fractions[:, 1] - 1) * math.log(MAX_ASPECT))
    sides = torch.stack([torch.sqrt(area * aspect), torch.sqrt(area / aspect)], 1).clamp(max=1)
    corner = fractions[:, 2:] * (1 - sides)
    return side * torch.cat([corner, corner + sides], 1)


def color_jitter(contrast: Tensor, brightness: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The matrices by which crop_resize multiplies normalized values with `contrast`, and adds `brightness` to them.

    contrast, brightness: float32 [N]. Returns float32 [N, 3, 4].
    """
    channels = zip(preprocessing.mean, preprocessing.std, strict=True)
    shift = torch.stack([255 * (brightness * std + (1 - contrast) * mean) for mean, std in channels], 1)
    return torch.cat([contrast[:, None, None] * torch.eye(3, device=shift.device), shift[..., None]], 2)


def rand_augment(images: Tensor, choices: Tensor, strength: float) -> Tensor:
    """RandAugment on uint8 [N, 3, S, S]; choices [N, 2·ops]: operation and sign in turn. strength in [0, 1]."""
    functional = importlib.import_module("torchvision.transforms.v2.functional")
    images = images.contiguous()
    for kinds, signs in zip(choices[:, ::2].T, choices[:, 1::2].T, strict=True):
        for kind in kinds.unique().tolist():
            for sign in (-1, 1):
                rows = torch.nonzero((kinds == kind) & ((signs == 1) == (sign == 1)))[:, 0]
                if len(rows):
                    images[rows] = OPERATIONS[kind](functional, images[rows], sign * strength)
    return images


def affine(
    f: Any, x: Tensor, angle: float = 0, dx: float = 0, dy: float = 0, shear: Sequence[float] = (0, 0)
) -> Tensor:
    """A turn in degrees, a shift in shares of the side, a shear in degrees."""
    shift = [round(dx * x.shape[-1]), round(dy * x.shape[-1])]
    moved: Tensor = f.affine(x, angle, shift, 1.0, list(shear), interpolation=f.InterpolationMode.BILINEAR)
    return moved


# The operations of the paper; `m` is the strength with its sign, from -1 to 1.
OPERATIONS: Sequence[Callable[[Any, Tensor, float], Tensor]] = (
    lambda f, x, m: x,
    lambda f, x, m: affine(f, x, shear=(17 * m, 0)),
    lambda f, x, m: affine(f, x, shear=(0, 17 * m)),
    lambda f, x, m: affine(f, x, dx=0.45 * m),
    lambda f, x, m: affine(f, x, dy=0.45 * m),
    lambda f, x, m: affine(f, x, angle=30 * m),
    lambda f, x, m: f.adjust_brightness(x, 1 + 0.9 * m),
    lambda f, x, m: f.adjust_saturation(x, 1 + 0.9 * m),
    lambda f, x, m: f.adjust_contrast(x, 1 + 0.9 * m),
    lambda f, x, m: f.adjust_sharpness(x, 1 + 0.9 * m),
    lambda f, x, m: f.posterize(x, 8 - round(4 * abs(m))),
    lambda f, x, m: f.solarize(x, 255 * (1 - abs(m))),
    lambda f, x, m: f.autocontrast(x),
    lambda f, x, m: f.equalize(x),
)


def mix(images: Tensor, targets: Tensor, samples: Tensor, epoch: int, config: Config) -> tuple[Tensor, Tensor]:
    """Mixes each image, and its target [N, num_classes], with its neighbor in the batch."""
    random = sample_generator(config.seed, epoch, int(samples[0]), "mix")
    uses_cutmix = config.cutmix > 0 and (config.mixup == 0 or random.random() < 0.5)
    alpha = config.cutmix if uses_cutmix else config.mixup
    share = float(random.beta(alpha, alpha))  # of the image itself
    others, other_targets = images.roll(1, 0), targets.roll(1, 0)
    if not uses_cutmix:
        return images * share + others * (1 - share), targets * share + other_targets * (1 - share)
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    middle_y, middle_x = random.random() * height, random.random() * width
    top, bottom = (min(height, max(0, round(middle_y + s * side * height / 2))) for s in (-1, 1))
    left, right = (min(width, max(0, round(middle_x + s * side * width / 2))) for s in (-1, 1))
    images = images.clone(memory_format=torch.preserve_format)
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)  # what the border has cut off stays
    return images, targets * share + other_targets * (1 - share)
