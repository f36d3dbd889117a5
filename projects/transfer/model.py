"""A backbone with a new head, and what of it is trained; the small network of the generated domains.

Images [N, 3, S, S] in, logits [N, num_classes] out. Layer-wise rates follow Howard and Ruder 2018 (arXiv
1801.06146), which also thaws one layer after the other, and Clark et al. 2020 (arXiv 2003.10555) in their decay.
"""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.errors import UserError
from projects.transfer.config import Config

SMALL = "small"  # the architecture of SmallNet


@dataclass
class Layer:
    """A part of a backbone that is frozen and thawed as one: names of its modules, and of what training changes."""

    modules: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)


class Classifier(nn.Module):
    """A backbone without its head, features [N, num_features] → a new head.

    The lowest `num_frozen` layers of the backbone stay as they are: no gradients, and their norms in evaluation mode
    whatever the mode of the whole. keeps_norms: whether all of its norms keep their statistics in training.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        num_classes: int,
        dropout: float = 0.0,
        *,
        keeps_norms: bool = False,
    ) -> None:
        super().__init__()
        self.keeps_norms = keeps_norms
        self.backbone, self.num_features = backbone, num_features
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))
        self.layers = layers_of(backbone)
        self.num_frozen = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def freeze(self, num_layers: int) -> None:
        """Freezes this many layers from the input on, and thaws the others."""
        self.num_frozen = num_layers
        for number, layer in enumerate(self.layers):
            for name in layer.parameters:
                self.backbone.get_parameter(name).requires_grad_(number >= num_layers)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen layers, and the norms that keep their statistics."""
        super().train(mode)
        if self.keeps_norms:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        if self.num_frozen == len(self.layers):
            self.backbone.eval()
        for layer in self.layers[: self.num_frozen]:
            for name in layer.modules:
                self.backbone.get_submodule(name).eval()
        return self


def layers_of(backbone: nn.Module) -> list[Layer]:
    """The backbone's children in order, in groups that have filters or matrices of their own.

    Sequential and ModuleList children are taken apart. What the backbone itself keeps as it is, such as filters that
    were computed and not learned, is in no layer's parameters.
    """
    layers = [Layer(parameters=[name for name, p in backbone.named_parameters(recurse=False) if p.requires_grad])]
    is_filled = False
    for name, child in _children_of(backbone):
        trained = {f"{name}.{inner}": p for inner, p in child.named_parameters() if p.requires_grad}
        has_matrix = any(p.ndim > 1 for p in trained.values())
        if has_matrix and is_filled:
            layers.append(Layer())
        layers[-1].modules.append(name)
        layers[-1].parameters += trained
        is_filled |= has_matrix
    return layers


def _children_of(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children by name; those of containers in place of these."""
    for name, child in backbone.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from ((f"{name}.{inner}", part) for inner, part in child.named_children())
        else:
            yield name, child


def build_classifier(
    backbone: nn.Module, num_classes: int, image_size: int, dropout: float, *, keeps_norms: bool = False
) -> Classifier:
    """A backbone with a new head. Raises UserError for an image size that the backbone does not take."""
    return Classifier(backbone, feature_size(backbone, image_size), num_classes, dropout, keeps_norms=keeps_norms)


def parameter_groups(network: Classifier, config: Config) -> list[dict[str, Any]]:
    """The optimizer's groups: the head's first, then each trained layer's from the top down, with its own rate.

    "begins" is the share of the training at which a group starts to be trained.
    """
    groups = _split_by_decay(list(network.head.parameters()), config.lr, config.weight_decay, 0.0)
    if config.strategy == "head":
        return groups
    rate, num = config.lr * config.backbone_lr, len(network.layers)
    for depth, layer in enumerate(reversed(network.layers)):
        parameters = [network.backbone.get_parameter(name) for name in layer.parameters]
        begins = config.thaw * (depth + 1) / num if config.strategy == "gradual" else 0.0
        groups += _split_by_decay(parameters, rate * config.layer_decay**depth, config.weight_decay, begins)
    return groups


def _split_by_decay(parameters: list[nn.Parameter], lr: float, decay: float, begins: float) -> list[dict[str, Any]]:
    """Matrices and filters with weight decay, biases and norm scales without; no empty group."""
    parts = [([p for p in parameters if p.ndim > 1], decay), ([p for p in parameters if p.ndim <= 1], 0.0)]
    return [{"params": part, "lr": lr, "weight_decay": d, "begins": begins} for part, d in parts if part]


def num_frozen_at(done: float, num_layers: int, config: Config) -> int:
    """Frozen layers when a share of the training is done."""
    if config.strategy == "full":
        return 0
    if config.strategy == "head":
        return num_layers
    return num_layers - min(num_layers, int(done / config.thaw * num_layers + 1e-9))


def build_network(architecture: str, num_classes: int) -> tuple[nn.Module, str]:
    """An untrained network with its own head, and the head's name. Raises UserError for one that is not known."""
    kind, _, name = architecture.partition(":")
    if kind == "timm":
        timm: Any = importlib.import_module("timm")
        try:
            network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
        except RuntimeError as error:
            raise UserError("timm has no such model", f"--backbone {architecture}", "see timm.list_models()") from error
    elif kind == "torchvision":
        models: Any = importlib.import_module("torchvision.models")
        try:
            network = models.get_model(name.partition(".")[0], weights=None, num_classes=num_classes)
        except (ValueError, TypeError) as error:
            todo = "see torchvision.models.list_models()"
            raise UserError("torchvision has no such classifier", f"--backbone {architecture}", todo) from error
    elif architecture == SMALL:
        network = SmallNet(num_classes)
    else:
        raise UserError("unknown backbone", architecture, "use the version of this project that wrote it")
    return network, name_of_head(network, num_classes, architecture)


def name_of_head(network: nn.Module, num_classes: int, architecture: str) -> str:
    """The one linear layer that gives the classes; "" for a network that comes without a head."""
    if num_classes == 0:
        return ""
    linear: list[str] = [
        n for n, m in network.named_modules() if isinstance(m, nn.Linear) and m.out_features == num_classes
    ]
    if len(linear) != 1:
        what = f"{architecture} has {len(linear)} linear layers of {num_classes} outputs"
        raise UserError("the backbone's head is not plain", what, "choose a backbone that has one")
    return linear[0]


def without_head(network: nn.Module, head: str) -> nn.Module:
    """The network with its head replaced by the identity: images in, features out."""
    if head:
        parent, _, name = head.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())
    return network


def feature_size(backbone: nn.Module, image_size: int) -> int:
    """Number of features of an image. Raises UserError for a size that the backbone does not take."""
    try:
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:120]
        where = f"--image-size {image_size} ({reason})"
        raise UserError("the backbone does not take images of this size", where, "give another") from error
    if features.ndim != 2:
        raise UserError("the backbone gives no plain features", f"shape {list(features.shape)}", "choose another")
    return int(features.shape[1])


class SmallNet(nn.Module):
    """Three stages of two 3×3 convolutions with norms, each at half the size of the one before; 170,000 weights."""

    def __init__(self, num_classes: int, widths: Sequence[int] = (24, 48, 96)) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        channels = 3
        for width in widths:
            first, second = (nn.Conv2d(c, width, 3, padding=1, bias=False) for c in (channels, width))
            norms = [nn.BatchNorm2d(width) for _ in range(2)]
            self.stages.append(nn.Sequential(first, nn.MaxPool2d(2), norms[0], nn.ReLU(), second, norms[1], nn.ReLU()))
            channels = width
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.stages(images)
        logits: Tensor = self.head(F.max_pool2d(features, features.shape[2:]).flatten(1))
        return logits
