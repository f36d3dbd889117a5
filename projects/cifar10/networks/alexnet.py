"""AlexNet in CIFAR size: Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional
Neural Networks", https://papers.nips.cc/paper/4824.

The five convolutions of the one-column form (Krizhevsky 2014, arXiv 1404.5997); on 32×32 pixels they end at one
pixel, and one linear layer follows: 2.47 million weights, as in https://github.com/bearpaw/pytorch-classification.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five convolutions, three of them with max pooling behind them, and a linear layer. From 28 pixels on."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.head = nn.Linear(256, num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))
        return logits
