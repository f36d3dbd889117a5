"""Augmentation that gradients pass through, for little data: Zhao et al. 2020, "Differentiable Augmentation for
Data-Efficient GAN Training", https://arxiv.org/abs/2006.10738.

Real and drawn pictures both go through it on their way to the discriminator, so it cannot learn the few real ones by
heart, and the generator does not learn to draw augmented ones. Choices are drawn per picture from torch's generator.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

AUTO_BELOW = 5_000  # training pictures
SHIFT, HOLE = 1 / 8, 1 / 2  # of a picture's side


def chosen(policy: str, num_train: int) -> Sequence[str]:
    """The augmentations of a setting: color, translation, cutout, or none of them."""
    if policy == "auto":
        return ("color", "translation", "cutout") if num_train < AUTO_BELOW else ()
    return () if policy == "none" else tuple(policy.split(","))


def differentiable_augment(images: Tensor, policy: Sequence[str]) -> Tensor:
    """images: [N, C, S, S] in [-1, 1]; returns the same shape and dtype."""
    if "color" in policy:
        images = color(images)
    if "translation" in policy:
        images = translation(images)
    if "cutout" in policy:
        images = cutout(images)
    return images


def color(images: Tensor) -> Tensor:
    """Other brightness (by ±0.5), saturation (0 to 2 times) and contrast (0.5 to 1.5 times)."""
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, dtype=images.dtype, device=images.device)
    images = images + (brightness - 0.5)
    if images.shape[1] > 1:
        gray = images.mean(1, keepdim=True)
        images = gray + (images - gray) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    result: Tensor = mean + (images - mean) * (contrast + 0.5)
    return result


def translation(images: Tensor) -> Tensor:
    """Moved by up to an eighth of the side; what comes in is 0."""
    num, _, height, width = images.shape
    reach = max(1, round(SHIFT * height))
    moves = torch.randint(0, 2 * reach + 1, (2, num, 1), device=images.device)
    padded = F.pad(images, (reach, reach, reach, reach)).permute(0, 2, 3, 1)
    rows = moves[0] + torch.arange(height, device=images.device)
    columns = moves[1] + torch.arange(width, device=images.device)
    first = torch.arange(num, device=images.device)[:, None, None]
    return padded[first, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor) -> Tensor:
    """A square of half the side is 0; its center may be anywhere."""
    num, _, height, width = images.shape
    half = max(1, round(HOLE * height / 2))
    centers = torch.randint(0, height, (2, num, 1), device=images.device)
    rows = (torch.arange(height, device=images.device) - centers[0]).abs() < half
    columns = (torch.arange(width, device=images.device) - centers[1]).abs() < half
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return images * (~hole).to(images.dtype)
