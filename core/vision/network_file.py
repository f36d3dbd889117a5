"""A trained image network as one file, for other projects to build on: RUN_DIR/network.safetensors.

Tensors are the network's state_dict; the metadata is JSON: its forward pass (see traced_network.py), and what its
images are brought to. A file from elsewhere runs no code of its own; torch.export.load would unpickle. Networks of
timm are stored by their name, because not all of them can be traced.
"""

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from core.errors import UserError
from core.files import write_atomically
from core.text_files import open_regular
from core.vision.traced_network import TracedNetwork, program_of

FILE_NAME = "network.safetensors"
_FORMAT = "1"


@dataclass(frozen=True)
class ImageNetwork:
    """A network and what its images are brought to: the center square of `image_size` pixels, mean and std of [0, 1].

    network: normalized images [N, 3, S, S] → logits [N, len(classes)].
    """

    network: nn.Module
    architecture: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


def save_network(
    path: Path,
    network: nn.Module,
    *,
    architecture: str,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str],
) -> None:
    """Writes a network's file, with its weights, and which of them take no gradient and so stay fixed.

    architecture: timm:NAME for one of timm's, any other name is for messages.
    Raises ValueError for a network with steps or modules that the format does not know.
    """
    program = None if architecture.startswith("timm:") else program_of(network)
    about = {
        "format": _FORMAT,
        "architecture": architecture,
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
        "classes": list(classes),
        "program": program,
    }
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    # One key: safetensors writes several in random order, and equal runs have equal files.
    write_atomically(path, safetensors.torch.save(tensors, {"about": json.dumps(about)}))


def load_network(path: Path) -> ImageNetwork:
    """Reads a network's file. Raises UserError for a file that is not there, damaged, or not one of these."""
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        where = f"{path} ({(error.strerror or 'unreadable').lower()})"
        raise UserError("no network for other projects", where, "give a run that was trained to its end") from error
    return network_from(content, path)


def network_from(content: bytes, where: object) -> ImageNetwork:
    """The network in a file's content; parameters and modules have the names that they had, and can be trained.

    where: what messages name. Raises UserError for content that save_network has not written.
    """
    try:
        tensors = safetensors.torch.load(content)
        about = json.loads(_metadata_of(content)["about"])
        if about.get("format") != _FORMAT:
            raise ValueError(f"format {about.get('format')}, this version reads {_FORMAT}")
        classes = tuple(str(name) for name in about["classes"])
        architecture = str(about["architecture"])
        if about["program"] is None:
            network = _timm_network(architecture, len(classes))
        else:
            network = TracedNetwork(about["program"], tensors)
        network.load_state_dict(tensors)
        mean, std = (tuple(float(value) for value in about[key]) for key in ("mean", "std"))
        return ImageNetwork(network, architecture, int(about["image_size"]), mean, std, classes)
    except UserError:
        raise
    except Exception as error:  # of safetensors, JSON, and constructors with arguments that do not fit
        reason = (str(error) or type(error).__name__).strip().partition("\n")[0][:160]
        raise UserError("not a usable network file", f"{where} ({reason})", "give another run") from error


def with_weights(content: bytes, weights: Mapping[str, Tensor]) -> bytes:
    """A file's content with some of its tensors replaced by others of the same names."""
    tensors = {**safetensors.torch.load(content), **{name: tensor.contiguous() for name, tensor in weights.items()}}
    return safetensors.torch.save(tensors, dict(_metadata_of(content)))


def _metadata_of(content: bytes) -> Mapping[str, str]:
    """The metadata of a safetensors file: https://huggingface.co/docs/safetensors/index#format."""
    length = int.from_bytes(content[:8], "little")
    found: Mapping[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return found


def _timm_network(architecture: str, num_classes: int) -> nn.Module:
    """A network of timm, untrained. Raises UserError where timm is missing or lacks it."""
    name = architecture.removeprefix("timm:")
    if not re.fullmatch(r"[A-Za-z0-9_.]+", name):  # a name with another prefix would be looked for on the network
        raise ValueError(f"{name} is not a model of timm")
    try:
        timm: Any = importlib.import_module("timm")
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
        return network
    except (ImportError, RuntimeError) as error:
        todo = "install the version of timm that it was trained with, or give another run"
        raise UserError("timm has no such model", f"{architecture} ({error})", todo) from error
