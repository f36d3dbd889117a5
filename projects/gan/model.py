"""The two networks: DCGAN for CPUs, a ResNet for GPUs, each with a discriminator of spectral norm 1 to match.

DCGAN: Radford et al. 2016 (arXiv 1511.06434). ResNet and spectral norm: Miyato et al. 2018 (arXiv 1802.05957). Classes:
conditional batch norm in the generator, projection in the discriminator (Miyato and Koyama 2018, arXiv 1802.05637).
Weights begin orthogonal (Brock et al. 2019, arXiv 1809.11096).
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
WIDEST = 8  # times the width


class Generator(nn.Module):
    """Noise [N, latent] and labels int64 [N], with classes → pictures [N, channels, size, size] in [-1, 1].

    num_classes: 0 draws without labels. width: channels before the last layer; a ResNet has four times
    as many everywhere.
    """

    def __init__(
        self, architecture: Architecture, size: int, channels: int, latent: int, width: int, num_classes: int
    ) -> None:
        super().__init__()
        num_stages = (size // 4).bit_length() - 1
        if architecture == "dcgan":
            widths = [width * min(WIDEST, 2**k) for k in range(num_stages - 1, -1, -1)]
        else:
            widths = [4 * width] * (num_stages + 1)
        self.latent, self.widest = latent, widths[0]
        self.stem = nn.Linear(latent, 4 * 4 * widths[0])
        self.stages = nn.ModuleList()
        stage = DcganUp if architecture == "dcgan" else ResidualUp
        for before, after in pairwise(widths):
            self.stages.append(stage(before, after, num_classes))
        self.norm = ClassNorm(widths[-1], num_classes)
        self.last: nn.Module = nn.Conv2d(widths[-1], channels, 3, padding=1)
        if architecture == "dcgan":
            self.last = nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1)
        begin_orthogonal(self)

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Pictures."""
        x = self.stem(noise).view(-1, 4, 4, self.widest).permute(0, 3, 1, 2)  # channels_last from the start
        for stage in self.stages:
            x = stage(x, labels)
        pictures: Tensor = torch.tanh(self.last(F.relu(self.norm(x, labels))))
        return pictures


class ClassNorm(nn.Module):
    """Batch norm whose scale and shift are those of the class that is drawn; without classes the usual ones."""

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


class DcganUp(nn.Module):
    """Norm, ReLU, transposed convolution to twice the size."""

    def __init__(self, channels_in: int, channels_out: int, num_classes: int) -> None:
        super().__init__()
        self.norm = ClassNorm(channels_in, num_classes)
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """[N, channels_in, S, S] → [N, channels_out, 2·S, 2·S]."""
        y: Tensor = self.conv(F.relu(self.norm(x, labels)))
        return y


class ResidualUp(nn.Module):
    """Two convolutions, the first behind a doubling of the size, round a 1×1 shortcut."""

    def __init__(self, channels_in: int, channels_out: int, num_classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ClassNorm(channels_in, num_classes), ClassNorm(channels_out, num_classes)
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
    """Pictures [N, channels, size, size] in [-1, 1] and labels int64 [N] → logits [N], high for real ones.

    num_classes: 0 looks at the pictures alone. width: channels of DCGAN's first layer; a ResNet has twice as many
    everywhere. normalized: whether layers have spectral norm 1.
    """

    def __init__(
        self, architecture: Architecture, size: int, channels: int, width: int, num_classes: int, normalized: bool
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        if architecture == "dcgan":
            for number in range((size // 4).bit_length() - 1):
                width_out = width * min(WIDEST, 2**number)
                self.stages.append(nn.Conv2d(channels, width_out, 4, stride=2, padding=1))
                self.stages.append(nn.LeakyReLU(0.1))
                channels = width_out
        else:
            num_halvings = max(1, (size // 8).bit_length() - 1)
            for number in range(num_halvings + 2):
                self.stages.append(ResidualDown(channels, 2 * width, number < num_halvings, number == 0))
                channels = 2 * width
            self.stages.append(nn.ReLU())
        self.head = nn.Linear(channels, 1)
        self.classes = nn.Embedding(num_classes, channels) if num_classes else None
        begin_orthogonal(self)
        if normalized:
            normalize_weights(self)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits."""
        with parametrize.cached():  # each weight is normalized once a pass
            normalized_weights(self, images.device.type)
            features = self.stages(images).sum((2, 3))
            logits: Tensor = self.head(features)[:, 0]
            if self.classes is not None:
                logits = logits + (self.classes(labels).to(features.dtype) * features).sum(1)
        return logits


class ResidualDown(nn.Module):
    """Two convolutions round a shortcut, then the mean over 2×2 pixels if the size is to be halved."""

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


def begin_orthogonal(module: nn.Module) -> None:
    """Orthogonal filters and matrices, biases of 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.orthogonal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def normalize_weights(module: nn.Module) -> None:
    """Gives every layer's weight spectral norm 1 from here on."""
    for part in weighted(module):
        spectral_norm(part)


def normalized_weights(module: nn.Module, device_type: str) -> list[Tensor]:
    """Normalizes all weights now, in float32 whatever precision the pass computes in; they are then in the cache."""
    with torch.autocast(device_type, enabled=False):
        return [part.weight for part in weighted(module) if parametrize.is_parametrized(part, "weight")]


def bake_weights(module: nn.Module) -> None:
    """Puts plain weights in the place of normalized ones, as they are in evaluation mode."""
    module.eval()
    for part in weighted(module):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight")


def weighted(module: nn.Module) -> Iterable[nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding]:
    """The layers that have filters, a matrix or a table, without the scales of norms."""
    skipped = {id(part.scale_shift) for part in module.modules() if isinstance(part, ClassNorm)}
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding) and id(part) not in skipped:
            yield part
