"""A backbone by the name of its architecture: timm:NAME, torchvision:NAME, or PROJECT:NAME of this house.

A project's networks are found by a convention: `projects.<project>.model` has `build_model(name, num_classes)`, for the
name that stands in the facts of its runs. The module is looked up when it is needed, so no project knows another.
"""

import importlib
import importlib.util
import re
from types import ModuleType
from typing import Any

import torch
from torch import nn

from core.errors import UserError


def build_backbone(architecture: str, num_classes: int) -> tuple[nn.Module, str]:
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
    else:
        network = project_model(kind).build_model(name, num_classes)
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
    """The network with its head replaced by the identity: pictures in, features out."""
    if not head:
        return network
    parent, _, name = head.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())
    return network


def feature_size(backbone: nn.Module, image_size: int) -> int:
    """Number of features of a picture. Raises UserError for a size that the backbone does not take."""
    try:
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:120]
        where = f"--image-size {image_size} ({reason})"
        raise UserError("the backbone does not take pictures of this size", where, "give another") from error
    if features.ndim != 2:
        raise UserError("the backbone gives no plain features", f"shape {list(features.shape)}", "choose another")
    return int(features.shape[1])


def project_model(project: str) -> ModuleType:
    """The model module of a project by the name in a run.json. Raises UserError where there is none that builds."""
    if re.fullmatch(r"[a-z][a-z0-9_]*", project) and importlib.util.find_spec(f"projects.{project}") is not None:
        module = importlib.import_module(f"projects.{project}.model")
        if hasattr(module, "build_model"):
            return module
    where = f"projects.{project}.model has no build_model(name, num_classes)"
    raise UserError("a run of a project without classifiers", where, "give a run of another project")
