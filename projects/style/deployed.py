"""The graph that is exported: uint8 photographs in, uint8 paintings out.

An instance norm depends on the whole image, so a tile of an image would come out otherwise than in the whole. The graph
therefore gives the means and deviations that its norms computed as well, and can be given those of another pass to use
instead: with them, the tiles of a large photograph fit together without seams.
"""

import torch
from torch import Tensor, nn

from projects.style.model import StyleNet

_LUMINANCE = (0.299, 0.587, 0.114)
_EPSILON = 1e-5  # of the training's instance norm


class Deployed(nn.Module):
    """The network between raw images and painted ones."""

    def __init__(self, network: StyleNet) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("luminance", torch.tensor(_LUMINANCE)[:, None, None])
        self.luminance: Tensor

    def forward(self, image: Tensor, blend: Tensor, keep_colors: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Painted images, uint8 [N, H, W, 3], and the statistics of every norm, float32 [N, 2, num_channels].

        image: uint8 [N, H, W, 3]. blend: the weight of each style, float32 [N, num_styles]. keep_colors: share of the
        photograph's colors, float32 [N] in [0, 1]. statistics: means and standard deviations to use, float32
        [N, 2, num_channels], or [0, 2, num_channels] to use the image's own.
        """
        levels, own = self.paint(image, blend, keep_colors, statistics)
        return levels.round().to(torch.uint8), own

    def paint(self, image: Tensor, blend: Tensor, keep_colors: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """forward before rounding: painted images as gray levels, float32 [N, H, W, 3] in [0, 255], and statistics."""
        photograph = image.permute(0, 3, 1, 2).float() / 255
        norm = _StatisticsNorm(statistics)
        painted = self.network(photograph, blend, norm)
        # The photograph with the painting's luminance: the same is added to red, green and blue.
        change = ((painted - photograph) * self.luminance).sum(1, keepdim=True)
        painted = painted + keep_colors[:, None, None, None] * (photograph + change - painted)
        return (255 * painted).clamp(0, 255).permute(0, 2, 3, 1), norm.statistics()

    @property
    def num_channels(self) -> int:
        """Channels of all norms together."""
        named = self.network.named_parameters()
        return sum(p.shape[1] for name, p in named if name.endswith(".bias") and p.ndim == 2)


class _StatisticsNorm:
    """Instance norm, residual and ReLU that keeps means and standard deviations, and uses given ones if there are any.

    given: float32 [N or 0, 2, num_channels].
    """

    def __init__(self, given: Tensor) -> None:
        self.given = given
        self.own: list[Tensor] = []
        self.channel = 0  # the first one of the next norm, among those of all norms

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor, *, residual: Tensor | None = None, relu: bool = True
    ) -> Tensor:
        """x: [N, C, H, W]; weight, bias: [N, C]."""
        mean = x.mean((2, 3))
        deviation = ((x - mean[:, :, None, None]).square().mean((2, 3)) + _EPSILON).sqrt()
        self.own.append(torch.stack([mean, deviation], 1))
        given = self.given[:, :, self.channel : self.channel + x.shape[1]]
        self.channel += x.shape[1]
        mean, deviation = torch.cat([self.own[-1], given])[given.shape[0] :].unbind(1)  # given, or else its own
        scale = weight / deviation
        y = x * scale[:, :, None, None] + (bias - mean * scale)[:, :, None, None]
        y = y if residual is None else y + residual
        return torch.relu(y) if relu else y

    def statistics(self) -> Tensor:
        """The images' own statistics: [N, 2, num_channels]."""
        return torch.cat(self.own, 2)


def random_inputs(deployed: Deployed, num: int, height: int, width: int, num_given: int) -> tuple[Tensor, ...]:
    """Noise images, a blend of styles, colors kept in part, and the statistics of `num_given` other noise images."""
    network, generator = deployed.network, torch.Generator().manual_seed(height * width)
    image = torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator)
    blend = torch.rand(num, network.num_styles, generator=generator)
    blend, keep_colors = blend / blend.sum(1, keepdim=True), torch.rand(num, generator=generator)
    statistics = torch.zeros(0, 2, deployed.num_channels)
    if num_given:
        others = random_inputs(deployed, num_given, 32, 48, 0)
        with torch.no_grad():
            statistics = deployed(*others)[1]
    return image, blend, keep_colors, statistics
