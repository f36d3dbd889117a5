"""VGG-11: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks" (arXiv 1409.1556), configuration A.

With batch norm (Ioffe and Szegedy 2015, arXiv 1502.03167), which the paper came too early for. On 32×32 pixels the
eight convolutions end at one pixel, so that one linear layer takes the place of three.
"""

import torch.nn.functional as F
from torch import Tensor, nn

_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # channels of the convolutions before each max pooling


class Vgg11(nn.Module):
    """Eight 3×3 convolutions with norms, max pooling behind each stage, and a linear layer. From 32 pixels on."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = 3
        for stage in _STAGES:
            for width in stage:
                self.features.append(nn.Conv2d(channels, width, 3, padding=1))
                self.features.append(nn.BatchNorm2d(width))
                self.features.append(nn.ReLU())
                channels = width
            self.features.append(nn.MaxPool2d(2))
        self.head = nn.Linear(channels, num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))
        return logits
