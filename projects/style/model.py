"""The two things that are trained: a network that paints any photograph in several styles, and a single image.

Images are float32 [N, 3, H, W] in [0, 1], in and out. The network is that of Johnson et al. 2016 (arXiv 1603.08155)
with few channels and reflected borders. It upsamples by nearest neighbors and a convolution, because transposed
convolutions leave checkerboards (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard). Shortcuts bring
detail from the encoder to the decoder (Ronneberger et al. 2015, arXiv 1505.04597). Styles share all filters; each has
its own scales and shifts after every instance norm (Dumoulin et al. 2017, arXiv 1610.07629).
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ext import instance_norm_act

STRIDE = 4  # pixels of the image per position at the lowest resolution
MIN_SIDE = 16  # pixels; a smaller image has too few rows or columns to reflect
_OUTER_SIZE = 5  # side of the first and the last filters, in pixels
_SHORTCUT_SCALE = 0.3  # initial factor of the shortcuts


class Norm(Protocol):
    """cuda_ext.instance_norm_act, or a replacement of it."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor, *, residual: Tensor | None, relu: bool) -> Tensor:
        """x [N, C, H, W]; weight, bias [N, C]."""


class StyleNet(nn.Module):
    """Encoder to quarter size, residual blocks, decoder. H and W are at least MIN_SIDE."""

    def __init__(self, num_styles: int, width: int, blocks: int) -> None:
        super().__init__()
        self.num_styles = num_styles
        self.first = Layer(3, width, _OUTER_SIZE, num_styles)
        self.down = nn.ModuleList([Layer(width, 2 * width, 3, num_styles), Layer(2 * width, 4 * width, 3, num_styles)])
        self.blocks = nn.ModuleList([Block(4 * width, num_styles) for _ in range(blocks)])
        self.up = nn.ModuleList([Layer(4 * width, 2 * width, 3, num_styles), Layer(2 * width, width, 3, num_styles)])
        self.shortcuts = nn.ParameterList(
            [torch.full((2 * width, 1, 1), _SHORTCUT_SCALE), torch.full((width, 1, 1), _SHORTCUT_SCALE)]
        )
        self.last = nn.Conv2d(width, 3, _OUTER_SIZE)

    def forward(self, images: Tensor, blend: Tensor, norm: Norm = instance_norm_act) -> Tensor:
        """images: float32 [N, 3, H, W] in [0, 1]. blend: each style's weight, float32 [N, num_styles]; a single style
        has 1. norm: the instance norm to use. Returns the painted images, of the same shape."""
        x = self.first(images - 0.5, blend, norm)
        encoded = []
        for layer in self.down:
            encoded.append(x)
            x = layer(x, blend, norm, stride=2)
        for block in self.blocks:
            x = block(x, blend, norm)
        for layer, shortcut, earlier in zip(self.up, self.shortcuts, reversed(encoded), strict=True):
            height, width = earlier.shape[2:]
            # narrow, not a slice: the exporter of torch 2.11 loses track of a slice's size
            x = F.interpolate(x, scale_factor=2).narrow(2, 0, height).narrow(3, 0, width)
            x = layer(x, blend, norm, residual=earlier * shortcut.to(earlier.dtype))
        painted = torch.sigmoid(self.last(F.pad(x, [_OUTER_SIZE // 2] * 4, mode="reflect")))
        if self.training:
            # An evenly colored image has a standard deviation of 0, by which the norms divide: through many of them its
            # gradient grows without bound. There is nothing to learn from it, so it gets no gradient.
            even = (images == images[:, :, :1, :1]).all(3).all(2).all(1)
            painted = torch.where(even[:, None, None, None], painted.detach(), painted)
        return painted

    def margin(self) -> int:
        """How far an output pixel depends on its surroundings, in pixels, rounded up to a multiple of STRIDE."""
        # Layer by layer; 3 and 1 come from upsampling.
        reach = _OUTER_SIZE // 2 + 1 + 2 + 2 * len(self.blocks) * STRIDE + 3 + 2 + 1 + 1 + _OUTER_SIZE // 2
        return -(-reach // STRIDE) * STRIDE


class Layer(nn.Module):
    """Reflected border, convolution, conditional instance norm, ReLU (with a residual, or without ReLU).

    filters: a matrix [channels_out, channels_in · size · size], as Muon needs it. There is no bias, because the norm
    subtracts the mean. weight, bias: each style's scales and shifts, [num_styles, channels_out].
    """

    def __init__(self, channels_in: int, channels_out: int, size: int, num_styles: int) -> None:
        super().__init__()
        self.shape = (channels_out, channels_in, size, size)
        filters = torch.empty(self.shape)
        nn.init.kaiming_uniform_(filters, a=math.sqrt(5))  # the initial values of nn.Conv2d
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
    """Two convolutions with a residual connection."""

    def __init__(self, channels: int, num_styles: int) -> None:
        super().__init__()
        self.conv1 = Layer(channels, channels, 3, num_styles)
        self.conv2 = Layer(channels, channels, 3, num_styles)

    def forward(self, x: Tensor, blend: Tensor, norm: Norm) -> Tensor:
        """[N, channels, H, W] → the same."""
        result: Tensor = self.conv2(self.conv1(x, blend, norm), blend, norm, residual=x, relu=False)
        return result


class OptimizedImage(nn.Module):
    """An image whose pixels are the parameters (Gatys et al. 2016, CVPR), at first those of the photograph.

    photograph: float32 [1, 3, H, W] in [0, 1].
    """

    def __init__(self, photograph: Tensor) -> None:
        super().__init__()
        self.pixels = nn.Parameter(photograph.clone())

    def forward(self, *_: Tensor) -> Tensor:
        """The image, float32 [1, 3, H, W] in [0, 1]; the arguments, which StyleNet needs, are ignored.

        The gradient passes through the clamp unchanged, so that a pixel outside of the range can return to it.
        """
        return self.pixels + (self.pixels.clamp(0, 1) - self.pixels).detach()


def one_hot(styles: Tensor, num_styles: int) -> Tensor:
    """The blends of single styles: int64 [N] → float32 [N, num_styles]."""
    return (styles[:, None] == torch.arange(num_styles, device=styles.device)).float()
