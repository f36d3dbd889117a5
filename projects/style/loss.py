"""The perceptual losses: how far a painted image is from a photograph's content, and from a style's Gram matrices.

Gatys et al. 2016, "Image Style Transfer Using Convolutional Neural Networks". Feature maps are centered on the style's
means before their products are taken (Novak and Nikulin 2016, arXiv 1605.04603). Each layer's distance is divided by
the size of the style images' features there, so that a weight means the same for all layers, networks and styles. The
photograph's own features would be a possible divisor for the content, but those of an evenly colored wall are nearly 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from core.accelerator import Accelerator
from cuda_ext import gram_matrix
from projects.style.config import Config
from projects.style.features import Features

_SMALLEST = 1e-6  # least divisor, so that a style of one even color has a finite loss


class Losses(NamedTuple):
    """Float32 [N], one for each image: the weighted sum, and its parts before weighting."""

    loss: Tensor
    content: Tensor
    style: Tensor
    tv: Tensor


class Perceptual:
    """The losses for some style images, float32 [1, 3, H, W] in [0, 1] each. Frozen, so no checkpoint holds it.

    centers: each layer's mean features of the styles, float32 [num_styles, C, 1, 1]. grams: each layer's Gram matrices
    of the styles, float32 [num_styles, C, C]: sums of products over positions, divided by C·H·W. sizes: each content
    layer's mean square of the styles' features, float32 scalars.
    """

    def __init__(self, features: Features, styles: Sequence[Tensor], config: Config, accelerator: Accelerator) -> None:
        self.features, self.config, self.accelerator = features, config, accelerator
        self.num_styles = len(styles)
        self.centers: list[Tensor] = []
        self.grams: list[Tensor] = []
        with torch.no_grad(), accelerator.autocast():
            of_contents = [features.content(image) for image in styles]
            of_styles = [features.style(image) for image in styles]
        self.sizes = [
            torch.stack([_mean_square(each) for each in maps]).mean() for maps in zip(*of_contents, strict=True)
        ]
        for maps in zip(*of_styles, strict=True):
            centers = [each.float().mean((2, 3), keepdim=True) for each in maps]
            self.centers.append(torch.cat(centers))
            grams = [gram_matrix(each.float() - center) for each, center in zip(maps, centers, strict=True)]
            self.grams.append(torch.cat(grams))

    def __call__(self, results: Tensor, photographs: Tensor, styles: Tensor) -> Losses:
        """results, photographs: float32 [N, 3, H, W] in [0, 1]; styles: the style of each result, int64 [N]."""
        with self.accelerator.autocast():
            with torch.no_grad():
                targets = self.features.content(photographs)
            content_maps, style_maps = self.features(results)
        content = torch.stack(
            [
                _mean_square(a.float() - b) / size.clamp(min=_SMALLEST)
                for a, b, size in zip(content_maps, targets, self.sizes, strict=True)
            ]
        )
        style = torch.stack(
            [
                _gram_distance(gram_matrix(each.float() - centers[styles]), grams[styles])
                for each, centers, grams in zip(style_maps, self.centers, self.grams, strict=True)
            ]
        )
        return self._weighted(content.mean(0), style.mean(0), _total_variation(results.float()))

    def _weighted(self, content: Tensor, style: Tensor, tv: Tensor) -> Losses:
        """The losses with their weighted sum, each [N]."""
        config = self.config
        loss = config.content_weight * content + config.style_weight * style + config.tv_weight * tv
        return Losses(loss, content, style, tv)


def _mean_square(maps: Tensor) -> Tensor:
    """[N, C, H, W] → float32 [N]."""
    return maps.float().square().mean((1, 2, 3))


def _gram_distance(grams: Tensor, targets: Tensor) -> Tensor:
    """Sum of the squared differences, divided by the sum of the targets' squares: [N, C, C] → [N]."""
    return (grams - targets).square().sum((1, 2)) / targets.square().sum((1, 2)).clamp(min=_SMALLEST)


def _total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbors, down and across: [N, 3, H, W] → [N]."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean((1, 2, 3))
    return down + across
