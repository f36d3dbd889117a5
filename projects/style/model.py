"""The two things that are trained: a network that paints any photograph in several styles, and a single picture.

Images [N, 3, H, W] in [0, 1], in and out. The network is that of Johnson et al. 2016 (arXiv 1603.08155) with few
channels, reflected borders, and repeated pixels with a convolution in place of transposed convolutions, which leave
checkerboards (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard). Shortcuts carry detail from the way
down to the way up (Ronneberger et al. 2015, arXiv 1505.04597). Styles share all filters and have scales and shifts of
their own behind each instance norm (Dumoulin et al. 2017, arXiv 1610.07629).
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ext import instance_norm_act

SIZE = 5  # of the first and the last filters, in pixels
SHORTCUT = 0.3  # how much of a shortcut is let through at first
STRIDE = 4  # pixels that a position at the lowest size stands for
MIN_SIDE = 16  # pixels; below it there is nothing to reflect


class Norm(Protocol):
    """instance_norm_act, or what stands in for it."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor, *, residual: Tensor | None, relu: bool) -> Tensor:
        """x [N, C, H, W]; weight, bias [N, C]."""


class StyleNet(nn.Module):
    """Down to quarter size, residual blocks, up again. H, W ≥ 16, and otherwise free."""

    def __init__(self, num_styles: int, width: int, blocks: int) -> None:
        super().__init__()
        self.num_styles = num_styles
        self.first = Layer(3, width, SIZE, num_styles)
        self.down = nn.ModuleList([Layer(width, 2 * width, 3, num_styles), Layer(2 * width, 4 * width, 3, num_styles)])
        self.blocks = nn.ModuleList([Block(4 * width, num_styles) for _ in range(blocks)])
        self.up = nn.ModuleList([Layer(4 * width, 2 * width, 3, num_styles), Layer(2 * width, width, 3, num_styles)])
        self.shortcuts = nn.ParameterList(
            [torch.full((2 * width, 1, 1), SHORTCUT), torch.full((width, 1, 1), SHORTCUT)]
        )
        self.last = nn.Conv2d(width, 3, SIZE)

    def forward(self, images: Tensor, blend: Tensor, norm: Norm = instance_norm_act) -> Tensor:
        """blend: the styles' weights, [N, num_styles]; they need not sum to 1, but do where a style is itself."""
        x = self.first(images - 0.5, blend, norm)
        passed = []
        for layer in self.down:
            passed.append(x)
            x = layer(x, blend, norm, stride=2)
        for block in self.blocks:
            x = block(x, blend, norm)
        for layer, shortcut, earlier in zip(self.up, self.shortcuts, reversed(passed), strict=True):
            height, width = earlier.shape[2:]
            x = F.interpolate(x, scale_factor=2)[:, :, :height, :width]
            x = layer(x, blend, norm, residual=earlier * shortcut.to(earlier.dtype))
        painted = torch.sigmoid(self.last(F.pad(x, [SIZE // 2] * 4, mode="reflect")))
        if self.training:
            # An evenly colored picture has no deviation that norms could divide by: through a chain of them its
            # gradients grow without bound. It has nothing to teach, so it gets none.
            even = (images == images[:, :, :1, :1]).all(3).all(2).all(1)
            painted = torch.where(even[:, None, None, None], painted.detach(), painted)
        return painted

    def margin(self) -> int:
        """How far a pixel of the result looks, in pixels, rounded up to what tiles may be cut at."""
        # Layer by layer; 3 and 1 are of repeated pixels.
        reach = SIZE // 2 + 1 + 2 + 2 * len(self.blocks) * STRIDE + 3 + 2 + 1 + 1 + SIZE // 2
        return -(-reach // STRIDE) * STRIDE


class Layer(nn.Module):
    """Reflected border, convolution, conditional instance norm, ReLU (and a residual, or no ReLU).

    The filters are the rows of a matrix, [channels_out, channels_in · size · size], which is what Muon takes. They have
    no bias, which the norm would take away again.
    """

    def __init__(self, channels_in: int, channels_out: int, size: int, num_styles: int) -> None:
        super().__init__()
        self.shape = (channels_out, channels_in, size, size)
        filters = torch.empty(self.shape)
        nn.init.kaiming_uniform_(filters, a=math.sqrt(5))  # as nn.Conv2d begins
        self.filters = nn.Parameter(filters.flatten(1))
        self.weight = nn.Parameter(torch.ones(num_styles, channels_out))
        self.bias = nn.Parameter(torch.zeros(num_styles, channels_out))

    def forward(
        self,
        x: Tensor,
        blend: Tensor,
        norm: Norm,
        *,
        stride: int = 1,
        residual: Tensor | None = None,
        relu: bool = True,
    ) -> Tensor:
        """[N, channels_in, H, W] → [N, channels_out, ⌈H/stride⌉, ⌈W/stride⌉]."""
        padded = F.pad(x, [self.shape[2] // 2] * 4, mode="reflect")
        x = F.conv2d(padded, self.filters.view(self.shape), stride=stride)
        return norm(x, blend @ self.weight, blend @ self.bias, residual=residual, relu=relu)


class Block(nn.Module):
    """Two convolutions round a shortcut."""

    def __init__(self, channels: int, num_styles: int) -> None:
        super().__init__()
        self.conv1 = Layer(channels, channels, 3, num_styles)
        self.conv2 = Layer(channels, channels, 3, num_styles)

    def forward(self, x: Tensor, blend: Tensor, norm: Norm) -> Tensor:
        """[N, channels, H, W] → the same."""
        result: Tensor = self.conv2(self.conv1(x, blend, norm), blend, norm, residual=x, relu=False)
        return result


class Picture(nn.Module):
    """One picture whose pixels are the parameters, as Gatys et al. 2016 (CVPR) have it; it begins as the photograph."""

    def __init__(self, photograph: Tensor) -> None:
        super().__init__()
        self.pixels = nn.Parameter(photograph.clone())

    def forward(self, *_: Tensor) -> Tensor:
        """[1, 3, H, W] in [0, 1], whatever a network would be asked.

        Beyond that range gradients pass as if it went on, so that no pixel is stuck.
        """
        return self.pixels + (self.pixels.clamp(0, 1) - self.pixels).detach()


def one_hot(styles: Tensor, num_styles: int) -> Tensor:
    """The blend that is one style alone: int64 [N] → float32 [N, num_styles]."""
    return F.one_hot(styles, num_styles).float()
