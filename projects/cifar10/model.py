"""The classifier's networks by name: those of networks/, and timm's. Images [N, 3, S, S] in, logits [N, num_classes]
out.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from core.errors import UserError
from core.evaluation import evaluating
from projects.cifar10.networks.alexnet import AlexNet
from projects.cifar10.networks.densenet import DenseNet
from projects.cifar10.networks.fast import FastNet
from projects.cifar10.networks.lenet import LeNet
from projects.cifar10.networks.mlp import Mlp
from projects.cifar10.networks.resnet import ResNet
from projects.cifar10.networks.vgg import Vgg11
from projects.cifar10.networks.vit import VisionTransformer


def build_model(name: str, num_classes: int) -> nn.Module:
    """An untrained network by name: one of NETWORKS, or timm:NAME for any of timm's classifiers."""
    if name in NETWORKS:
        return NETWORKS[name](num_classes)
    import timm

    try:
        model: nn.Module = timm.create_model(name.removeprefix("timm:"), pretrained=False, num_classes=num_classes)
        return model
    except RuntimeError as error:
        raise UserError("timm has no such model", f"--model {name}", "see timm.list_models()") from error


def check_image_size(network: nn.Module, name: str, size: int) -> None:
    """Tries a forward pass before a run folder is made. Raises UserError for an image size that the network refuses."""
    try:
        with evaluating(network):
            network(torch.zeros(2, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        own = getattr(network, "default_cfg", {}).get("input_size")
        todo = f"give --image-size {own[-1]}" if own else "give a larger --image-size"
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        what = f"--image-size {size} for --model {name} ({reason})"
        raise UserError("the network does not take this size", what, todo) from error


NETWORKS: Mapping[str, Callable[[int], nn.Module]] = {
    "fast": FastNet,
    "wide": partial(FastNet, widths=(64, 256, 256), gelu=True),
    "resnet18": partial(ResNet, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2)),
    "resnet20": partial(ResNet, widths=(16, 32, 64), blocks=(3, 3, 3), projection=False),
    "resnet50": partial(ResNet, widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), bottleneck=True),
    "lenet": LeNet,
    "alexnet": AlexNet,
    "vgg11": Vgg11,
    "densenet": DenseNet,
    "mlp": Mlp,
    "vit-tiny": VisionTransformer,
}
