"""Augmentation that gradients pass through, for little data: Zhao et al. 2020, "Differentiable Augmentation for
Data-Efficient GAN Training", https://arxiv.org/abs/2006.10738.

Real and generated images both go through it before the discriminator, which then overfits the few real ones less, and
the generator does not learn to make augmented images. Each image has random choices of its own, from torch's generator.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_ALL = ("color", "translation", "cutout")
_AUTO_BELOW = 5_000  # training images
_MAX_SHIFT, _HOLE = 1 / 8, 1 / 2  # of an image's side


def parse_policy(policy: str, num_train: int) -> tuple[str, ...]:
    """The augmentations that --augment names: some of color, translation and cutout; num_train: of training images."""
    if policy == "auto":
        return _ALL if num_train < _AUTO_BELOW else ()
    return () if policy == "none" else tuple(policy.split(","))


def differentiable_augment(images: Tensor, policy: Sequence[str]) -> Tensor:
    """images: [N, C, S, S] in [-1, 1]; returns the same shape and dtype."""
    if "color" in policy:
        images = _color(images)
    if "translation" in policy:
        images = _translation(images)
    if "cutout" in policy:
        images = _cutout(images)
    return images


def _color(images: Tensor) -> Tensor:
    """Changes brightness (by ±0.5), saturation (0 to 2 times) and contrast (0.5 to 1.5 times)."""
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, dtype=images.dtype, device=images.device)
    images = images + (brightness - 0.5)
    if images.shape[1] > 1:
        gray = images.mean(1, keepdim=True)
        images = gray + (images - gray) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    result: Tensor = mean + (images - mean) * (contrast + 0.5)
    return result


def _translation(images: Tensor) -> Tensor:
    """Shifts by up to an eighth of the side; the gap is filled with 0."""
    num, _, height, width = images.shape
    reach = max(1, round(_MAX_SHIFT * height))
    moves = torch.randint(0, 2 * reach + 1, (2, num, 1), device=images.device)
    padded = F.pad(images, (reach, reach, reach, reach)).permute(0, 2, 3, 1)
    rows = moves[0] + torch.arange(height, device=images.device)
    columns = moves[1] + torch.arange(width, device=images.device)
    first = torch.arange(num, device=images.device)[:, None, None]
    return padded[first, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cutout(images: Tensor) -> Tensor:
    """Sets a square of half the side to 0; its center may be anywhere."""
    num, _, height, width = images.shape
    half = max(1, round(_HOLE * height / 2))
    centers = torch.randint(0, height, (2, num, 1), device=images.device)
    rows = (torch.arange(height, device=images.device) - centers[0]).abs() < half
    columns = (torch.arange(width, device=images.device) - centers[1]).abs() < half
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return images * (~hole).to(images.dtype)
