"""A multilayer perceptron: Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors",
Nature 323, with ReLU (Glorot, Bordes and Bengio 2011). It knows nothing of neighboring pixels, which is its point here.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear layers of 1,024 and 512 units on the pixels of 32×32 images; other sizes are resized to that."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(3 * 32 * 32, 1024)
        self.linear2 = nn.Linear(1024, 512)
        self.head = nn.Linear(512, num_classes)
        for layer in (self.linear1, self.linear2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = F.adaptive_avg_pool2d(images, 32).flatten(1)
        logits: Tensor = self.head(F.relu(self.linear2(F.relu(self.linear1(x)))))
        return logits
