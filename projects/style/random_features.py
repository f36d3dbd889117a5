"""Feature maps from random filters, for losses without pretrained weights.

Random filters at several scales are enough for textures (Ustyuzhaninov et al. 2017, arXiv 1606.00021). These filter the
levels of a Laplacian pyramid (Burt and Adelson 1983), so that fine detail weighs as much as large shapes. They have a
second layer, and random functions of color beside them. The content maps are edges of the luminance, normalized by
local contrast (Jarrett et al. 2009, "What is the best multi-stage architecture for object recognition?").
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NUM_OCTAVES, _NUM_COLOR_OCTAVES = 4, 3
# Typical standard deviation of colors, and 4 times that of a pyramid's band; the filters are scaled for it.
_SPREAD = 0.25
_LUMINANCE = (0.299, 0.587, 0.114)


class RandomFeatures(nn.Module):
    """Random filters, always the same ones: their generator has its own seed.

    Images are at least 32 pixels wide and high.
    """

    description = "random multi-scale filters (not pretrained)"

    def __init__(self, channels: int = 32, deep_channels: int = 48, colors: int = 24) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(20170)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        self.bands, self.tints, self.deep, self.shifts = (nn.ParameterList() for _ in range(4))
        for octave in range(_NUM_OCTAVES):
            size = 7 if octave else 5
            bands = normal(channels, 3, size, size)
            bands -= bands.mean((1, 2, 3), keepdim=True)  # evenly colored areas give 0
            self.bands.append(_normalized(bands) * 4 / _SPREAD)
            self.tints.append(_normalized(normal(channels, 3, 1, 1)) * 0.5 / _SPREAD)
            self.shifts.append(0.5 * normal(channels))
            deep = normal(deep_channels, channels, 3, 3)
            self.deep.append(_normalized(deep - 0.5 * deep.mean((2, 3), keepdim=True)))
        self.colors = nn.Parameter(_normalized(normal(colors, 3, 1, 1)) / _SPREAD)
        self.color_shifts = nn.Parameter(0.7 * normal(colors))
        edges = normal(24, 1, 5, 5)
        self.edges = nn.Parameter(_normalized(edges - edges.mean((2, 3), keepdim=True)) / _SPREAD)
        self.luminance = nn.Parameter(torch.tensor(_LUMINANCE)[None, :, None, None])

    def forward(self, images: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """images: float32 [N, 3, H, W] in [0, 1]. Returns the maps of the content loss and those of the style loss."""
        return self.content(images), self.style(images)

    def content(self, images: Tensor) -> Sequence[Tensor]:
        """Edges of the luminance at half, quarter and eighth size, divided by their local strength."""
        maps, light = [], F.conv2d(images, self.luminance)
        for _ in range(_NUM_OCTAVES - 1):
            light = _smooth(light)[:, :, ::2, ::2]
            edges = F.conv2d(_pad(light, 2), self.edges)
            strength = _smooth(_smooth(edges.square().mean(1, keepdim=True)))
            maps.append(edges * torch.rsqrt(strength + 0.02))
        return maps

    def style(self, images: Tensor) -> Sequence[Tensor]:
        """For each octave: filters of its band and colors, filters of those maps, functions of color alone."""
        maps, level = [], images - 0.5
        for octave in range(_NUM_OCTAVES):
            low = _smooth(level)
            bands = F.conv2d(_pad(level - low, self.bands[octave].shape[2] // 2), self.bands[octave])
            shallow = F.relu(bands + F.conv2d(low, self.tints[octave], self.shifts[octave]))
            maps.append(shallow)
            if octave:
                maps.append(F.relu(F.conv2d(shallow, self.deep[octave])))
            if octave < _NUM_COLOR_OCTAVES:
                maps.append(F.relu(F.conv2d(level, self.colors, self.color_shifts)))
            level = low[:, :, ::2, ::2]
        return maps


def _normalized(filters: Tensor) -> Tensor:
    """Filters scaled so that the squares of each sum to 1."""
    return filters / filters.square().sum((1, 2, 3), keepdim=True).sqrt()


def _pad(x: Tensor, border: int) -> Tensor:
    """Pads with mirrored borders."""
    return F.pad(x, [border] * 4, mode="reflect")


def _smooth(x: Tensor) -> Tensor:
    """Smooths by (1, 2, 1) / 4 in both directions."""
    return F.avg_pool2d(F.avg_pool2d(_pad(x, 1), 2, 1), 2, 1)
