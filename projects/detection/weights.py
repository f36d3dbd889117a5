"""Initial weights: torchvision's of COCO from its cache or its server, or a file of the same network.

Files are read without running any code of theirs, and every tensor's name and shape is compared before one is used.
Only the layers whose shape depends on the number of classes may differ in it; these keep their random weights.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from core.errors import UserError
from core.weights import read_weights, torch_hub_file
from projects.detection.config import Config

# The layers whose shape depends on the number of classes.
CLASS_LAYERS = {
    "small": ("class_output.",),
    "ssdlite320_mobilenet_v3_large": tuple(f"head.classification_head.module_list.{level}.1." for level in range(6)),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("roi_heads.box_predictor.",),
    "retinanet_resnet50_fpn_v2": ("head.classification_head.cls_logits.",),
    "fcos_resnet50_fpn": ("head.classification_head.cls_logits.",),
}
_COUNTS = "num_batches_tracked"  # of norms: some files lack them, and frozen norms have none
_PREFIX = "model."  # of torchvision's models in this project's own checkpoints


def load_weights(detector: nn.Module, config: Config) -> None:
    """Puts the weights that the settings name into a detector.

    Raises UserError, with nothing changed, for a file that is missing, unreadable, or not this network's.
    """
    path = coco_file(config.model) if config.weights == "coco" else Path(config.weights)
    network = detector if config.model == "small" else detector.get_submodule("model")
    fill(network, read_tensors(path), CLASS_LAYERS[config.model], path)


@torch.no_grad()
def fill(network: nn.Module, tensors: Mapping[str, Tensor], class_layers: tuple[str, ...], path: Path) -> None:
    """Copies the tensors of a file into a network, all or none; class layers of another shape stay as they are."""
    live = network.state_dict()
    mine, theirs = ({name for name in each if not name.endswith(_COUNTS)} for each in (live, tensors))
    for name in sorted(mine ^ theirs):
        missing = f"{name} is missing from it" if name in mine else f"the network has no {name}"
        raise UserError("weights of another network", f"{path}: {missing}", "give a file of the network of --model")
    for name in sorted(mine):
        have, given = tuple(live[name].shape), tuple(tensors[name].shape)
        if have != given and not name.startswith(class_layers):
            shapes = f"{path}: {name} is {list(given)}, the network has {list(have)}"
            raise UserError("weights of another network", shapes, "give a file of the network of --model")
        if not tensors[name].isfinite().all():
            raise UserError("weights that are not finite", f"{path}: {name}", "give another file")
    for name, tensor in live.items():
        if name in tensors and tensor.shape == tensors[name].shape:
            tensor.copy_(tensors[name])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without what this project's checkpoints have more."""
    tensors = {name: tensor for name, tensor in read_weights(path).items() if name != "num_updates"}
    if all(name.startswith(_PREFIX) for name in tensors):
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def coco_file(model: str) -> Path:
    """The file of torchvision's COCO weights. Raises UserError, naming file and folder."""
    return torch_hub_file(torchvision.models.get_model_weights(model).DEFAULT.url)
