"""LeNet-5: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition".

http://vision.stanford.edu/cs598_spring07/papers/Lecun98.pdf, section II.B. As in most of today's copies, averages have
no weights, every map of the third layer sees all maps of the second, and the last layer gives logits. With one channel
in it has 61,706 weights; with three, 62,006.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """Two convolutions with average pooling, three linear layers, tanh between them. channels: 1 for gray, 3 for RGB.

    Made for 32×32 pixels; of other sizes the features are averaged to the same 5×5.
    """

    def __init__(self, num_classes: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.linear1 = nn.Linear(16 * 5 * 5, 120)
        self.linear2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = F.avg_pool2d(torch.tanh(self.conv1(images)), 2)
        x = F.adaptive_avg_pool2d(torch.tanh(self.conv2(x)), 5).flatten(1)
        x = torch.tanh(self.linear2(torch.tanh(self.linear1(x))))
        logits: Tensor = self.head(x)
        return logits
