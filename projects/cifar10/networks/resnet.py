"""Residual networks: He et al. 2016 (arXiv 1512.03385), section 4.2 for ResNet-20; ResNet-18 and 50 with a CIFAR stem.

Initialized after He et al. 2015 (arXiv 1502.01852) with the last norm of each block at zero (Goyal et al. 2017, arXiv
1706.02677), so that a block begins as the identity. Images [N, 3, S, S] in, logits [N, num_classes] out.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ResNet(nn.Module):
    """Residual stages behind one 3×3 convolution; each stage after the first halves the size.

    widths, blocks: of each stage. projection: shortcut B of the paper where the shape changes, A otherwise.
    bottleneck: blocks of three convolutions that end with four times their width, as in ResNet-50.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        *,
        projection: bool = True,
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential()
        channels = widths[0]
        for number, width in enumerate(widths):
            for block in range(blocks[number]):
                stride = 2 if number > 0 and block == 0 else 1
                if bottleneck:
                    self.stages.append(BottleneckBlock(channels, width, stride))
                else:
                    self.stages.append(ResidualBlock(channels, width, stride, projection))
                channels = 4 * width if bottleneck else width
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock) and not isinstance(module.shortcut, Padding):
                # Where shortcut and norm both gave 0, ReLU would pass no gradient on, and the channel stay 0 for ever.
                nn.init.zeros_(module.norm2.weight)
            elif isinstance(module, BottleneckBlock):
                nn.init.zeros_(module.norm3.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.stages(F.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions round a shortcut: a 1×1 convolution where the shape changes (option B of the paper),
    or subsampling and zero channels (option A)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out or stride != 1:
            option_b = Projection(channels_in, channels_out, stride)
            self.shortcut = option_b if projection else Padding(channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, S, S] → [N, channels_out, S/stride, S/stride]."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class BottleneckBlock(nn.Module):
    """A 1×1 convolution to `width` channels, a 3×3 one, and a 1×1 one to 4 × width, round a shortcut (option B)."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        changes = channels_in != 4 * width or stride != 1
        self.shortcut: nn.Module = Projection(channels_in, 4 * width, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, S, S] → [N, 4 × width, S/stride, S/stride]."""
        y = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


class Projection(nn.Sequential):
    """Shortcut B: a strided 1×1 convolution and a norm."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        conv = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels_out))


class Padding(nn.Module):
    """Shortcut A: every stride-th pixel, and zeros for the new channels; it has no weights."""

    def __init__(self, channels_out: int, stride: int) -> None:
        super().__init__()
        self.channels_out, self.stride = channels_out, stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, S, S] → [N, channels_out, S/stride, S/stride]."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.channels_out - x.shape[1]))
