"""DenseNet-BC: Huang, Liu, van der Maaten and Weinberger 2017, "Densely Connected Convolutional Networks"
(arXiv 1608.06993), table 2: depth 100 and growth 12 give 0.8 million weights on CIFAR."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseNet(nn.Module):
    """Three dense blocks; between them a 1×1 convolution halves the channels and averaging halves the size.

    depth: layers in all, 3 × 2 × layers of a block + 4. growth: channels that each layer adds.
    """

    def __init__(self, num_classes: int, depth: int = 100, growth: int = 12) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.features = nn.Sequential()
        for block in range(3):
            if block > 0:
                transition = nn.Conv2d(channels, channels // 2, 1, bias=False)
                self.features.extend([nn.BatchNorm2d(channels), nn.ReLU(), transition, nn.AvgPool2d(2)])
                channels //= 2
            for _ in range((depth - 4) // 6):
                self.features.append(DenseLayer(channels, growth))
                channels += growth
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = F.relu(self.norm(self.features(self.stem(images))))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class DenseLayer(nn.Module):
    """Norm, ReLU, 1×1 convolution to 4 × growth channels, norm, ReLU, 3×3 convolution; its input stays beside it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, S, S] → [N, channels + growth, S, S]."""
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)
