"""Feature maps from random filters: what the losses look at where there are no pretrained weights.

Random filters at several scales are enough for textures (Ustyuzhaninov et al. 2017, arXiv 1606.00021). These stand on a
Laplacian pyramid (Burt and Adelson 1983), which gives fine detail the same say as large forms, and have a second layer,
and random functions of color beside them. The content is what is left of light and dark when the local contrast is
taken out (Jarrett et al. 2009, "What is the best multi-stage architecture for object recognition?").
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_OCTAVES, COLOR_OCTAVES = 4, 3
SPREAD = 0.25  # of colors about gray, and 4 times that of a band of the pyramid: what the filters' gains are made for
LUMINANCE = (0.299, 0.587, 0.114)


class RandomFeatures(nn.Module):
    """Random filters, the same in every program: their generator has a seed of its own. H, W ≥ 32."""

    description = "random multi-scale filters (not pretrained)"

    def __init__(self, channels: int = 32, deep_channels: int = 48, colors: int = 24) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(20170)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        self.bands, self.tints, self.deep, self.shifts = (nn.ParameterList() for _ in range(4))
        for octave in range(NUM_OCTAVES):
            size = 7 if octave else 5
            bands = normal(channels, 3, size, size)
            bands -= bands.mean((1, 2, 3), keepdim=True)  # blind to evenly colored areas
            self.bands.append(unit(bands) * 4 / SPREAD)
            self.tints.append(unit(normal(channels, 3, 1, 1)) * 0.5 / SPREAD)
            self.shifts.append(0.5 * normal(channels))
            deep = normal(deep_channels, channels, 3, 3)
            self.deep.append(unit(deep - 0.5 * deep.mean((2, 3), keepdim=True)))
        self.colors = nn.Parameter(unit(normal(colors, 3, 1, 1)) / SPREAD)
        self.color_shifts = nn.Parameter(0.7 * normal(colors))
        edges = normal(24, 1, 5, 5)
        self.edges = nn.Parameter(unit(edges - edges.mean((2, 3), keepdim=True)) / SPREAD)
        self.luminance = nn.Parameter(torch.tensor(LUMINANCE)[None, :, None, None])

    def forward(self, images: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The maps of the content loss, and those of the style loss."""
        return self.content(images), self.style(images)

    def content(self, images: Tensor) -> Sequence[Tensor]:
        """Edges of light and dark at half, quarter and eighth size, over their own strength round about."""
        maps, light = [], F.conv2d(images, self.luminance)
        for _ in range(NUM_OCTAVES - 1):
            light = blurred(light)[:, :, ::2, ::2]
            edges = F.conv2d(reflected(light, 2), self.edges)
            strength = blurred(blurred(edges.square().mean(1, keepdim=True)))
            maps.append(edges * torch.rsqrt(strength + 0.02))
        return maps

    def style(self, images: Tensor) -> Sequence[Tensor]:
        """For each octave: filters over its band and colors, filters over these, functions of color alone."""
        maps, level = [], images - 0.5
        for octave in range(NUM_OCTAVES):
            low = blurred(level)
            bands = F.conv2d(reflected(level - low, self.bands[octave].shape[2] // 2), self.bands[octave])
            shallow = F.relu(bands + F.conv2d(low, self.tints[octave], self.shifts[octave]))
            maps.append(shallow)
            if octave:
                maps.append(F.relu(F.conv2d(shallow, self.deep[octave])))
            if octave < COLOR_OCTAVES:
                maps.append(F.relu(F.conv2d(level, self.colors, self.color_shifts)))
            level = low[:, :, ::2, ::2]
        return maps


def unit(filters: Tensor) -> Tensor:
    """Filters whose squares sum to 1 each."""
    return filters / filters.square().sum((1, 2, 3), keepdim=True).sqrt()


def reflected(x: Tensor, border: int) -> Tensor:
    """With mirrored borders."""
    return F.pad(x, [border] * 4, mode="reflect")


def blurred(x: Tensor) -> Tensor:
    """Smoothed by (1, 2, 1) / 4 in both directions."""
    return F.avg_pool2d(F.avg_pool2d(reflected(x, 1), 2, 1), 2, 1)
