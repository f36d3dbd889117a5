"""The losses of both networks, and a penalty that keeps the training stable.

Hinge: Lim and Ye 2017 (arXiv 1705.02894), Miyato et al. 2018 (arXiv 1802.05957). Non-saturating: Goodfellow et al. 2014
(arXiv 1406.2661). R1: Mescheder et al. 2018 (arXiv 1801.04406).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Loss = Literal["hinge", "nonsaturating"]


def discriminator_loss(kind: _Loss, real: Tensor, fake: Tensor) -> Tensor:
    """_Loss for logits [N] of real images, which should be high, and of generated ones, which should be low."""
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(kind: _Loss, fake: Tensor) -> Tensor:
    """_Loss for logits [N] of generated images, which should be high."""
    return -fake.mean() if kind == "hinge" else F.softplus(-fake).mean()


def r1_penalty(discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Half the mean squared norm of the discriminator's gradient at real images [N, C, S, S], in float32.

    It can be differentiated by the discriminator's weights.
    """
    images = images.float().requires_grad_(True)
    with torch.autocast(images.device.type, enabled=False):
        logits = discriminator(images, labels)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2
