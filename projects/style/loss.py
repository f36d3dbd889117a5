"""The perceptual losses: how far a picture is from a photograph's content, and from a style's Gram matrices.

Gatys et al. 2016, "Image Style Transfer Using Convolutional Neural Networks". Maps are centered on the style's means
before their products are taken (Novak and Nikulin 2016, arXiv 1605.04603), and each layer's distance is divided by the
size of the style pictures' maps there, so that a weight means the same for all layers, features and styles. A
photograph's own size would do for content too, but of an evenly gray wall it is nearly 0, and the loss has no bound.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from core.accelerator import Accelerator
from cuda_ext import gram_matrix
from projects.style.config import Config
from projects.style.features import Features

SMALLEST = 1e-6  # what is divided by, so that a style of one even color has a finite loss


class Losses(NamedTuple):
    """A number for each picture, [N]: the sum by the settings' weights, and its parts before weighing."""

    loss: Tensor
    content: Tensor
    style: Tensor
    tv: Tensor


class Perceptual:
    """The losses for some styles, [1, 3, H, W] each. It is frozen, so it is no part of what a run saves."""

    def __init__(self, features: Features, styles: Sequence[Tensor], config: Config, accelerator: Accelerator) -> None:
        self.features, self.config, self.accelerator = features, config, accelerator
        self.num_styles = len(styles)
        self.centers: list[Tensor] = []  # of each layer [num_styles, C, 1, 1]
        self.grams: list[Tensor] = []  # [num_styles, C, C]
        with torch.no_grad(), accelerator.autocast():
            of_contents = [features.content(image) for image in styles]
            of_styles = [features.style(image) for image in styles]
        self.sizes = [
            torch.stack([mean_square(each) for each in maps]).mean() for maps in zip(*of_contents, strict=True)
        ]
        for maps in zip(*of_styles, strict=True):
            centers = [each.float().mean((2, 3), keepdim=True) for each in maps]
            self.centers.append(torch.cat(centers))
            grams = [gram_matrix(each.float() - center) for each, center in zip(maps, centers, strict=True)]
            self.grams.append(torch.cat(grams))

    def __call__(self, results: Tensor, photographs: Tensor, styles: Tensor) -> Losses:
        """results, photographs: [N, 3, H, W]; styles: which one each result should be in, int64 [N]."""
        with self.accelerator.autocast():
            with torch.no_grad():
                wanted = self.features.content(photographs)
            found, maps = self.features(results)
        content = torch.stack(
            [
                mean_square(a.float() - b) / size.clamp(min=SMALLEST)
                for a, b, size in zip(found, wanted, self.sizes, strict=True)
            ]
        )
        style = torch.stack(
            [
                gram_distance(gram_matrix(each.float() - centers[styles]), grams[styles])
                for each, centers, grams in zip(maps, self.centers, self.grams, strict=True)
            ]
        )
        return self.weighed(content.mean(0), style.mean(0), total_variation(results.float()))

    def weighed(self, content: Tensor, style: Tensor, tv: Tensor) -> Losses:
        """The losses with their weighed sum."""
        config = self.config
        loss = config.content_weight * content + config.style_weight * style + config.tv_weight * tv
        return Losses(loss, content, style, tv)


def mean_square(maps: Tensor) -> Tensor:
    """[N, C, H, W] → [N]."""
    return maps.float().square().mean((1, 2, 3))


def gram_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the squared differences, over that of what is wanted: [N, C, C] → [N]."""
    return (found - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2)).clamp(min=SMALLEST)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbors, down and across: [N, 3, H, W] → [N]."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean((1, 2, 3))
    return down + across
