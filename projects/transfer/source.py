"""Where a backbone's weights and constants come from: timm, torchvision, a run of any project, a drawn domain.

A run's facts name its network (see backbone.py), its classes, and the mean and std that its pictures had.
"""

import hashlib
import importlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from core import checkpoint
from core.accelerator import Accelerator
from core.errors import UserError
from core.run import read_run
from core.weights import read_weights, torch_hub_file
from projects.transfer.backbone import build_backbone, name_of_head, without_head
from projects.transfer.config import PROJECT, SYNTHETIC, Config
from projects.transfer.weights import Weights, from_bytes, hub_file, load_weights, report_unfit, to_bytes

FILE_NAME = "backbone.safetensors"  # in the run folder: the backbone as training found it
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Source:
    """A backbone's architecture, constants and weights.

    architecture: timm:NAME, torchvision:NAME or PROJECT:NAME. num_classes: of the head that is taken off. mean, std:
    what its pictures are normalized with, None for those of the new pictures. weights: without the head; None for
    random ones. origin: where the weights are from, for people.
    """

    architecture: str
    num_classes: int
    image_size: int
    mean: Sequence[float] | None
    std: Sequence[float] | None
    weights: Weights | None
    origin: str

    def facts(self) -> dict[str, Any]:
        """What run.json says of it; a resumed run and an export need nothing else but the file of weights."""
        return {
            "model": self.architecture,
            "num_source_classes": self.num_classes,
            "source_image_size": self.image_size,
            "weights": self.origin,
            "weights_sha256": None if self.weights is None else hashlib.sha256(to_bytes(self.weights)).hexdigest(),
        }


def find_source(config: Config, accelerator: Accelerator, taken_up: Path | None) -> Source:
    """The backbone that the settings name; of a run that is taken up, the one in its folder."""
    if taken_up is not None and (kept := kept_source(taken_up, config)) is not None:
        return kept
    name = config.backbone if config.backbone != "auto" else "source" if config.data == SYNTHETIC else "timm:resnet18"
    kind, _, rest = name.partition(":")
    if kind == "source":
        source = from_drawn_domain(config, accelerator)
    elif kind == "run":
        source = from_run(Path(rest), config)
    else:
        source = from_timm(rest, config) if kind == "timm" else from_torchvision(rest, config)
    if config.from_scratch:
        return Source(source.architecture, source.num_classes, source.image_size, None, None, None, "random")
    return source


def from_timm(name: str, config: Config) -> Source:
    """A model of timm with the weights of its tag, downloaded once or from --weights."""
    classes = 1000
    timm: Any = importlib.import_module("timm")
    with suppress(RuntimeError):  # of an unknown name, which building it will say in our words
        classes = int(getattr(timm.get_pretrained_cfg(name), "num_classes", classes))
    network, head = build_backbone(f"timm:{name}", classes)
    constants: Any = network.pretrained_cfg
    size = int(constants["input_size"][-1])
    path = config.weights
    if path is None and not config.from_scratch:
        if not constants.get("hf_hub_id"):
            raise UserError("timm knows no weights of this model", f"--backbone timm:{name}", "give --weights FILE")
        path = hub_file(constants["hf_hub_id"], constants.get("hf_hub_filename") or "model.safetensors")
    weights = filled(network, head, path, config)
    origin = config.weights.name if config.weights else str(constants.get("hf_hub_id"))
    return Source(f"timm:{name}", classes, size, tuple(constants["mean"]), tuple(constants["std"]), weights, origin)


def from_torchvision(name: str, config: Config) -> Source:
    """A classifier of torchvision; its weights are the default ones or NAME.WEIGHTS, downloaded once, or --weights."""
    models: Any = importlib.import_module("torchvision.models")
    network, head = build_backbone(f"torchvision:{name}", 1000)
    model, _, which = name.partition(".")
    enum = models.get_model_weights(model)
    try:
        preset = enum[which] if which else enum.DEFAULT
    except KeyError as error:
        todo = f"choose from {', '.join(entry.name for entry in enum)}"
        raise UserError("torchvision has no such weights", f"--backbone torchvision:{name}", todo) from error
    size = preset.transforms().crop_size[0]
    path = config.weights
    if path is None and not config.from_scratch:
        path = torch_hub_file(preset.url)
    weights = filled(network, head, path, config)
    origin = config.weights.name if config.weights else str(preset)
    return Source(f"torchvision:{name}", 1000, size, IMAGENET_MEAN, IMAGENET_STD, weights, origin)


def from_run(run_dir: Path, config: Config) -> Source:
    """The network of a run with its best weights; the run's own constants."""
    run = read_run(run_dir)
    facts, project = run["facts"], str(run["project"])
    try:
        architecture = facts["model"] if project == PROJECT else f"{project}:{facts['model']}"
        mean, std = tuple(map(float, facts["mean"])), tuple(map(float, facts["std"]))
        size = int(facts.get("image_size") or run["config"]["image_size"])
        classes = int(facts.get("num_source_classes") or len(facts["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        where = f"{run_dir} of projects.{project} ({error} is not in its run.json)"
        raise UserError("not a run of a classifier of pictures", where, "give a run of one") from error
    origin = f"run of projects.{project}"
    if config.from_scratch:
        return Source(architecture, classes, size, mean, std, None, origin)
    folder, state = best_checkpoint(run_dir)
    saved: Weights = state["ema"]["module"] if "ema" in state else state["model"]
    if project == PROJECT:  # its backbone stands in its checkpoint, or where it was frozen, in its folder
        own = {name.removeprefix("backbone."): tensor for name, tensor in saved.items() if name.startswith("backbone.")}
        weights = own or from_bytes(run_dir / FILE_NAME, facts["weights_sha256"])
    else:
        network, head = build_backbone(architecture, classes)
        load_weights(network, saved, head=head, where=folder, partial=False)
        weights = without_head(network, head).state_dict()
    return Source(architecture, classes, size, mean, std, weights, f"{origin}, step {state['loop']['best_step']}")


def best_checkpoint(run_dir: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that was best in validation, and its state. Raises UserError where there is no good one."""
    folder = checkpoint.best(run_dir)
    try:
        return folder, checkpoint.load(folder)
    except checkpoint.Broken as error:
        raise UserError("the best checkpoint is broken", f"{folder} ({error})", "give another run") from error


def from_drawn_domain(config: Config, accelerator: Accelerator) -> Source:
    """A small network that learns the drawn source domain now."""
    from projects.transfer.pretrain import SIZE, learn_source_domain
    from projects.transfer.synthetic import SOURCE_CLASSES

    architecture, classes = f"{PROJECT}:small", len(SOURCE_CLASSES)
    if config.from_scratch:
        return Source(architecture, classes, SIZE, None, None, None, "random")
    network, mean, std = learn_source_domain(config.seed, accelerator)
    weights = without_head(network, name_of_head(network, classes, architecture)).state_dict()
    return Source(architecture, classes, SIZE, mean, std, weights, "the drawn source domain")


def kept_source(run_dir: Path, config: Config) -> Source | None:
    """The backbone of a run that is taken up; None where it was stopped before it had kept one."""
    facts, path = read_run(run_dir, PROJECT)["facts"], run_dir / FILE_NAME
    if "weights_sha256" not in facts or not (config.from_scratch or path.exists()):
        return None
    weights = None if config.from_scratch else from_bytes(path, facts["weights_sha256"])
    mean, std = (None, None) if config.from_scratch else (facts["mean"], facts["std"])
    classes, size = facts["num_source_classes"], facts["source_image_size"]
    return Source(facts["model"], classes, size, mean, std, weights, facts["weights"])


def keep(source: Source, run_dir: Path) -> None:
    """Puts the backbone's weights into the run folder, which from here on needs no other."""
    if source.weights is not None and not (run_dir / FILE_NAME).exists():
        checkpoint.write_atomically(run_dir / FILE_NAME, to_bytes(source.weights))


def filled(network: nn.Module, head: str, path: Path | None, config: Config) -> Weights | None:
    """The network's weights without its head, read from a file; None without one."""
    if path is None:
        return None
    faults = load_weights(network, read_weights(path), head=head, where=path, partial=config.partial_weights)
    report_unfit(faults)
    return without_head(network, head).state_dict()
