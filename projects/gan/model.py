"""The two networks: DCGAN for CPUs, a ResNet for GPUs, each with a discriminator of spectral norm 1 to match.

DCGAN: Radford et al. 2016 (arXiv 1511.06434). ResNet and spectral norm: Miyato et al. 2018 (arXiv 1802.05957). Classes:
conditional batch norm in the generator, projection in the discriminator (Miyato and Koyama 2018, arXiv 1802.05637).
Orthogonal initialization (Brock et al. 2019, arXiv 1809.11096).
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

Architecture = Literal["dcgan", "resnet"]
_MAX_MULTIPLE = 8  # times the width


class Generator(nn.Module):
    """Noise [N, latent] and labels int64 [N] → images [N, channels, size, size] in [-1, 1].

    num_classes: 0 for a generator that takes no labels. width: channels before the last layer; a ResNet has four times
    as many everywhere.
    """

    def __init__(
        self, architecture: Architecture, size: int, channels: int, latent: int, width: int, num_classes: int
    ) -> None:
        super().__init__()
        num_stages = (size // 4).bit_length() - 1
        if architecture == "dcgan":
            widths = [width * min(_MAX_MULTIPLE, 2**k) for k in range(num_stages - 1, -1, -1)]
        else:
            widths = [4 * width] * (num_stages + 1)
        self.latent, self.widest = latent, widths[0]
        self.stem = nn.Linear(latent, 4 * 4 * widths[0])
        self.stages = nn.ModuleList()
        stage = _DcganUp if architecture == "dcgan" else _ResidualUp
        for before, after in pairwise(widths):
            self.stages.append(stage(before, after, num_classes))
        self.norm = _ClassNorm(widths[-1], num_classes)
        self.last: nn.Module = nn.Conv2d(widths[-1], channels, 3, padding=1)
        if architecture == "dcgan":
            self.last = nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1)
        _initialize(self)

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """The images."""
        x = self.stem(noise).view(-1, 4, 4, self.widest).permute(0, 3, 1, 2)  # channels_last from the start
        for stage in self.stages:
            x = stage(x, labels)
        images: Tensor = torch.tanh(self.last(F.relu(self.norm(x, labels))))
        return images


class _ClassNorm(nn.Module):
    """Batch norm with a scale and shift for each class; without classes the usual one."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=num_classes == 0)
        self.scale_shift: nn.Embedding | None = None
        if num_classes:
            self.scale_shift = nn.Embedding(num_classes, 2 * channels)
            nn.init.ones_(self.scale_shift.weight[:, :channels].detach())
            nn.init.zeros_(self.scale_shift.weight[:, channels:].detach())

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[N, C, H, W], labels [N] → [N, C, H, W]."""
        y: Tensor = self.norm(x)
        if self.scale_shift is None:
            return y
        assert labels is not None
        scale, shift = self.scale_shift(labels)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        return torch.addcmul(shift, y, scale)


class _DcganUp(nn.Module):
    """Norm, ReLU, transposed convolution to twice the size."""

    def __init__(self, channels_in: int, channels_out: int, num_classes: int) -> None:
        super().__init__()
        self.norm = _ClassNorm(channels_in, num_classes)
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[N, channels_in, S, S] → [N, channels_out, 2·S, 2·S]."""
        y: Tensor = self.conv(F.relu(self.norm(x, labels)))
        return y


class _ResidualUp(nn.Module):
    """Two convolutions, the first after doubling the size, with a 1×1 shortcut around both."""

    def __init__(self, channels_in: int, channels_out: int, num_classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _ClassNorm(channels_in, num_classes), _ClassNorm(channels_out, num_classes)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[N, channels_in, S, S] → [N, channels_out, 2·S, 2·S]."""
        y: Tensor = self.conv1(F.interpolate(F.relu(self.norm1(x, labels)), scale_factor=2.0))
        y = self.conv2(F.relu(self.norm2(y, labels)))
        shortcut: Tensor = F.interpolate(self.shortcut(x), scale_factor=2.0)
        return y + shortcut


class Discriminator(nn.Module):
    """Images [N, channels, size, size] in [-1, 1] and labels int64 [N] → logits [N], high for real ones.

    num_classes: 0 for a discriminator that ignores labels. width: channels of DCGAN's first layer; a ResNet has twice
    as many everywhere. normalized: whether layers have spectral norm 1.
    """

    def __init__(
        self, architecture: Architecture, size: int, channels: int, width: int, num_classes: int, normalized: bool
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        if architecture == "dcgan":
            for number in range((size // 4).bit_length() - 1):
                width_out = width * min(_MAX_MULTIPLE, 2**number)
                self.stages.append(nn.Conv2d(channels, width_out, 4, stride=2, padding=1))
                self.stages.append(nn.LeakyReLU(0.1))
                channels = width_out
        else:
            num_halvings = max(1, (size // 8).bit_length() - 1)
            for number in range(num_halvings + 2):
                self.stages.append(_ResidualDown(channels, 2 * width, number < num_halvings, number == 0))
                channels = 2 * width
            self.stages.append(nn.ReLU())
        self.head = nn.Linear(channels, 1)
        self.classes = nn.Embedding(num_classes, channels) if num_classes else None
        _initialize(self)
        if normalized:
            normalize_weights(self)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits."""
        with parametrize.cached():  # each weight is normalized once a pass
            _normalized_weights(self, images.device.type)
            features = self.stages(images).sum((2, 3))
            logits: Tensor = self.head(features)[:, 0]
            if self.classes is not None:
                logits = logits + (self.classes(labels).to(features.dtype) * features).sum(1)
        return logits


class _ResidualDown(nn.Module):
    """Two convolutions with a shortcut around both, then the mean over 2×2 pixels if the size is to be halved."""

    def __init__(self, channels_in: int, channels_out: int, halve: bool, first: bool) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out or halve:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, S, S] → [N, channels_out, S/2, S/2], or of the same size."""
        y: Tensor = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        y = y + self.shortcut(x)
        return F.avg_pool2d(y, 2) if self.halve else y


def _initialize(module: nn.Module) -> None:
    """Orthogonal filters and matrices, biases of 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.orthogonal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def normalize_weights(module: nn.Module) -> None:
    """Adds spectral normalization to every layer's weight."""
    for part in weighted_layers(module):
        spectral_norm(part)


def _normalized_weights(module: nn.Module, device_type: str) -> list[Tensor]:
    """All weights, normalized now and so put into the cache: in float32, whatever precision the pass computes in."""
    with torch.autocast(device_type, enabled=False):
        return [layer.weight for layer in weighted_layers(module) if parametrize.is_parametrized(layer, "weight")]


def remove_spectral_norm(module: nn.Module) -> None:
    """Replaces normalized weights by plain ones with the values of evaluation mode."""
    module.eval()
    for part in weighted_layers(module):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight")


def weighted_layers(module: nn.Module) -> Iterable[nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding]:
    """The layers with filters, a matrix or an embedding, without the scales and shifts of norms."""
    skipped = {id(part.scale_shift) for part in module.modules() if isinstance(part, _ClassNorm)}
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding) and id(part) not in skipped:
            yield part
