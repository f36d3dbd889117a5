"""What the losses look at: feature maps of a frozen network, which is never trained, saved or exported."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from projects.style.config import Config
from projects.style.random_features import RandomFeatures
from projects.style.vgg import load_vgg


class Features(Protocol):
    """Images [N, 3, H, W] in [0, 1] → feature maps, finer ones first."""

    description: str  # as every report names it

    def __call__(self, images: Tensor, /) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The maps of the content loss, and those of the style loss."""

    def content(self, images: Tensor) -> Sequence[Tensor]:
        """The former alone."""

    def style(self, images: Tensor) -> Sequence[Tensor]:
        """The latter alone."""


def build_features(config: Config, device: torch.device) -> Features:
    """The features that the settings name, frozen. Raises UserError where their weights are not to be had."""
    network = RandomFeatures() if config.features == "random" else load_vgg(config.features, config.weights)
    network.requires_grad_(False).eval().to(device)
    return network
