"""The networks whose feature maps the losses compare. They are frozen: never trained, saved or exported."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from projects.style.config import Config
from projects.style.lite_features import LiteFeatures
from projects.style.random_features import RandomFeatures
from projects.style.vgg_features import VggFeatures, load_vgg


class Features(Protocol):
    """A frozen network: images float32 [N, 3, H, W] in [0, 1] → feature maps [N, C, H, W], finer ones first.

    description: its name in reports.
    """

    description: str

    def __call__(self, images: Tensor, /) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Returns the maps of the content loss and those of the style loss."""

    def content(self, images: Tensor) -> Sequence[Tensor]:
        """The maps of the content loss alone."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its weights."""

    def style(self, images: Tensor) -> Sequence[Tensor]:
        """The maps of the style loss alone."""


def build_features(config: Config, device: torch.device) -> Features:
    """The feature network that the settings name, frozen, on the device. Raises UserError where its weights cannot be
    read."""
    network: RandomFeatures | LiteFeatures | VggFeatures
    if config.features == "random":
        network = RandomFeatures()
    elif config.features == "lite0":
        network = LiteFeatures()
    else:
        network = load_vgg(config.features, config.weights)
    network.requires_grad_(False).eval().to(device)
    return network


def features_sha256(features: Features) -> str:
    """The SHA-256 of the network's weights, by which a resumed run knows it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(features.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
