"""The two games, and the penalty that calms them.

Hinge: Lim and Ye 2017 (arXiv 1705.02894), Miyato et al. 2018 (arXiv 1802.05957). Non-saturating: Goodfellow et al. 2014
(arXiv 1406.2661). R1: Mescheder et al. 2018 (arXiv 1801.04406).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Game = Literal["hinge", "nonsaturating"]


def discriminator_loss(game: Game, real: Tensor, fake: Tensor) -> Tensor:
    """How badly logits [N] tell real pictures (high) from drawn ones (low)."""
    if game == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(game: Game, fake: Tensor) -> Tensor:
    """How little drawn pictures pass for real ones by their logits [N]."""
    return -fake.mean() if game == "hinge" else F.softplus(-fake).mean()


def r1_penalty(discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Half the mean squared norm of the discriminator's gradient at real images [N, C, S, S], in float32.

    It can be differentiated by the discriminator's weights.
    """
    images = images.float().requires_grad_(True)
    with torch.autocast(images.device.type, enabled=False):
        logits = discriminator(images, labels)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2
