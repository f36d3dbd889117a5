"""The fast networks: a fixed whitening layer, then few wide convolutions.

After Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds" (arXiv 2404.00498). Images [N, 3, S, S] in, logits
[N, num_classes] out.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ext import pool_norm_act
from cuda_ext.pool_norm import Activation

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class FastNet(nn.Module):
    """A whitening layer and three stages of two convolutions, with max pooling inside a stage's first one.

    The whitening filters are computed from training pictures by `whiten` and then stay as they are, so that no
    gradient has to go back through the largest activations. The other filters begin as the identity on their first
    channels (Dirac), the rest of them as PyTorch's default. gelu: GELU in place of ReLU, and a bias of the whitening
    filters that is learned, for whose sake gradients do go back that far.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = (32, 96, 192), *, gelu: bool = False) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, kernel_size=2, bias=gelu)
        self.whitening.weight.requires_grad_(False)
        if self.whitening.bias is not None:
            nn.init.zeros_(self.whitening.bias)
        self.activation: Activation = "gelu" if gelu else "relu"
        self.stages = nn.Sequential()
        channels = 24
        for width in widths:
            self.stages.append(FastStage(channels, width, self.activation))
            channels = width
        self.head = nn.Linear(channels, num_classes, bias=False)

    @torch.no_grad()
    def whiten(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Sets the filters to the whitened principal components of 2×2 patches, and their negatives.

        images: normalized, [N, 3, S, S]; a few thousand are enough.
        """
        patches = F.unfold(images.float(), kernel_size=2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / torch.sqrt(values + epsilon)).T.flip(0).reshape(12, 3, 2, 2)
        self.whitening.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.stages(ACTIVATIONS[self.activation](self.whitening(images)))
        logits: Tensor = self.head(F.max_pool2d(features, features.shape[2:]).flatten(1))
        return logits / 9  # maxima are large; so the softmax starts soft


class FastStage(nn.Module):
    """Convolution, pooling to half the size, norm, activation; convolution, norm, activation."""

    def __init__(self, channels_in: int, channels_out: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out, momentum=0.4)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out, momentum=0.4)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight[: conv.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, S, S] → [N, channels_out, S/2, S/2]."""
        if self.training:
            x = norm_act(self.conv1(x), self.norm1, self.activation, pool=True)
            return norm_act(self.conv2(x), self.norm2, self.activation, pool=False)
        activate = ACTIVATIONS[self.activation]
        x = activate(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return activate(self.norm2(self.conv2(x)))


def norm_act(x: Tensor, norm: nn.BatchNorm2d, activation: Activation, *, pool: bool) -> Tensor:
    """Pooling to half the size if asked for, norm with the statistics of the batch, activation, as one operation."""
    assert norm.momentum is not None
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return pool_norm_act(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        training=norm.training,
        momentum=norm.momentum,
        eps=norm.eps,
        activation=activation,
        pool=pool,
    )
