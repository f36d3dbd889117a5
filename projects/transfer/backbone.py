"""The pretrained backbone: from timm, from torchvision, from a run, or a small network that learns a generated domain.

What was found goes into the run folder as backbone.safetensors, so that a resumed run and an export need no other
place. A run of this project gives its own backbone; one of another project the file network.safetensors in its folder.
"""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.errors import UserError
from core.files import write_atomically
from core.plain import from_plain
from core.run import read_run
from core.stored_run import StoredRun, load_run
from core.vision import network_file
from core.weights import read_weights, torch_hub_file
from projects.transfer.config import SYNTHETIC, Config, Facts
from projects.transfer.model import (
    SMALL,
    Classifier,
    build_classifier,
    build_network,
    name_of_head,
    without_head,
)
from projects.transfer.weights import hub_file, load_weights, report_unfit

FILE_NAME = "backbone.safetensors"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Source:
    """What a backbone is built from.

    architecture: timm:NAME, torchvision:NAME, small, or run:NAME. num_classes: of the head that is taken off. mean,
    std: what its images are normalized with; None for those of the new images. content: of backbone.safetensors, the
    weights without the head, or for run:NAME the network's whole file; None for none. is_random: whether training
    begins with random weights. origin: where the weights are from, for people.
    """

    architecture: str
    num_classes: int
    image_size: int
    mean: Sequence[float] | None
    std: Sequence[float] | None
    content: bytes | None
    is_random: bool
    origin: str

    @property
    def sha256(self) -> str | None:
        """Of the content."""
        return None if self.content is None else hashlib.sha256(self.content).hexdigest()

    def build(self) -> nn.Module:
        """The backbone, images [N, 3, S, S] → features [N, F], with its weights."""
        if self.architecture.startswith("run:"):
            return self._build_stored()
        network, head = build_network(self.architecture, self.num_classes)
        backbone = without_head(network, head)
        if self.content is not None and not self.is_random:
            backbone.load_state_dict(safetensors.torch.load(self.content))
        return backbone

    def _build_stored(self) -> nn.Module:
        """The backbone from a network's file; random weights are PyTorch's own, and all of them are trained."""
        assert self.content is not None
        network = network_file.network_from(self.content, self.architecture).network
        if self.is_random:
            for module in network.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
            network.requires_grad_(True)
        return without_head(network, name_of_head(network, self.num_classes, self.architecture))


def find_source(config: Config, accelerator: Accelerator, resumed: Path | None) -> Source:
    """The backbone that the settings name; for a run that is resumed, the one in its folder."""
    if resumed is not None:
        facts = from_plain(Facts, read_run(resumed, config.project)["facts"], resumed / "run.json")
        if facts.weights_sha256 is None or (resumed / FILE_NAME).exists():  # else it was stopped before it had kept it
            return kept_source(resumed, facts, config)
    name = config.backbone if config.backbone != "auto" else "source" if config.data == SYNTHETIC else "timm:resnet18"
    kind, _, rest = name.partition(":")
    if kind == "source":
        source = _from_generated_domain(config, accelerator)
    elif kind == "run":
        source = _from_run(Path(rest), config)
    else:
        source = _from_timm(rest, config) if kind == "timm" else _from_torchvision(rest, config)
    if not config.from_scratch:
        return source
    content = source.content if source.architecture.startswith("run:") else None
    return replace(source, mean=None, std=None, content=content, is_random=True, origin="random")


def keep(source: Source, run_dir: Path) -> None:
    """Puts the backbone into the run folder, which needs no other place then."""
    if source.content is not None and not (run_dir / FILE_NAME).exists():
        write_atomically(run_dir / FILE_NAME, source.content)


def kept_source(run_dir: Path, facts: Facts, config: Config) -> Source:
    """The backbone in a run folder. Raises UserError where it is missing or was changed."""
    content = None if facts.weights_sha256 is None else _kept_content(run_dir, facts.weights_sha256)
    mean, std = (None, None) if config.from_scratch else (facts.mean, facts.std)
    numbers = facts.num_source_classes, facts.source_image_size
    return Source(facts.model, *numbers, mean, std, content, config.from_scratch, facts.weights)


def _kept_content(run_dir: Path, sha256: str | None) -> bytes:
    """The run folder's backbone.safetensors. Raises UserError for one that is missing or not as it was written."""
    path, todo = run_dir / FILE_NAME, "put it back, or start a new run"
    try:
        content = path.read_bytes()
    except OSError as error:
        where = f"{path} ({(error.strerror or 'unreadable').lower()})"
        raise UserError("the run's backbone is missing", where, todo) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError("the run's backbone was changed", f"{path}: digest mismatch", todo)
    return content


def load_classifier(run: StoredRun[Config, Facts]) -> Classifier:
    """The classifier of a run with a checkpoint's weights, averaged where the run averages; in evaluation mode."""
    facts, config = run.facts, run.config
    is_frozen = config.strategy == "head"
    if is_frozen or facts.model.startswith("run:"):
        source = kept_source(run.path, facts, config)
    else:  # all weights stand in the checkpoint
        numbers = facts.num_source_classes, facts.source_image_size
        source = Source(facts.model, *numbers, facts.mean, facts.std, None, is_random=True, origin=facts.weights)
    network = build_classifier(source.build(), len(facts.classes), facts.image_size, config.dropout)
    (network.head if is_frozen else network).load_state_dict(run.weights())
    return network.eval()


def _from_timm(name: str, config: Config) -> Source:
    """A model of timm with the weights of its tag, downloaded once or from --weights."""
    classes = 1000
    timm: Any = importlib.import_module("timm")
    with suppress(RuntimeError):  # of an unknown name, which building it will say in our words
        classes = int(getattr(timm.get_pretrained_cfg(name), "num_classes", classes))
    network, head = build_network(f"timm:{name}", classes)
    constants: Any = network.pretrained_cfg
    size = int(constants["input_size"][-1])
    path = config.weights
    if path is None and not config.from_scratch:
        if not constants.get("hf_hub_id"):
            raise UserError("timm knows no weights of this model", f"--backbone timm:{name}", "give --weights FILE")
        path = hub_file(constants["hf_hub_id"], constants.get("hf_hub_filename") or "model.safetensors")
    content = _filled(network, head, path, config)
    origin = config.weights.name if config.weights else str(constants.get("hf_hub_id"))
    mean, std = tuple(constants["mean"]), tuple(constants["std"])
    return Source(f"timm:{name}", classes, size, mean, std, content, is_random=False, origin=origin)


def _from_torchvision(name: str, config: Config) -> Source:
    """A classifier of torchvision; its weights are the default ones or NAME.WEIGHTS, downloaded once, or --weights."""
    models: Any = importlib.import_module("torchvision.models")
    network, head = build_network(f"torchvision:{name}", 1000)
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
    content = _filled(network, head, path, config)
    origin = config.weights.name if config.weights else str(preset)
    constants = 1000, size, _IMAGENET_MEAN, _IMAGENET_STD
    return Source(f"torchvision:{name}", *constants, content, is_random=False, origin=origin)


def _from_run(run_dir: Path, config: Config) -> Source:
    """The network of a run with its best weights; the run's own constants."""
    project = str(read_run(run_dir)["project"])
    if project == config.project:
        return _from_own_run(run_dir, config)
    path = run_dir / network_file.FILE_NAME
    stored = network_file.load_network(path)
    if len(stored.mean) != 3:
        raise UserError("a network of gray images", path, "give a run on color images")
    return Source(
        architecture=f"run:{stored.architecture}",
        num_classes=len(stored.classes),
        image_size=stored.image_size,
        mean=stored.mean,
        std=stored.std,
        content=path.read_bytes(),
        is_random=False,
        origin=f"run of projects.{project}",
    )


def _from_own_run(run_dir: Path, config: Config) -> Source:
    """The backbone of a run of this project: from its checkpoint, or where it was frozen, from its folder."""
    run = load_run(run_dir, "best", Config, Facts)
    facts, weights = run.facts, run.weights()
    content = None if facts.weights_sha256 is None else _kept_content(run_dir, facts.weights_sha256)
    own = {name.removeprefix("backbone."): tensor for name, tensor in weights.items() if name.startswith("backbone.")}
    if own and facts.model.startswith("run:"):  # the file describes the network too, with its old head
        assert content is not None
        content = network_file.with_weights(content, own)
    elif own:
        content = _to_bytes(own)
    constants = facts.num_source_classes, facts.image_size, facts.mean, facts.std
    origin = f"run of projects.{config.project}, step {run.step}"
    return Source(facts.model, *constants, content, is_random=False, origin=origin)


def _from_generated_domain(config: Config, accelerator: Accelerator) -> Source:
    """The small network, which learns the generated source domain now."""
    from projects.transfer.pretrain import SIZE, learn_source_domain
    from projects.transfer.synthetic import SOURCE_CLASSES

    classes = len(SOURCE_CLASSES)
    if config.from_scratch:
        return Source(SMALL, classes, SIZE, None, None, None, is_random=True, origin="random")
    network, mean, std = learn_source_domain(config.seed, accelerator)
    content = _to_bytes(without_head(network, name_of_head(network, classes, SMALL)).state_dict())
    return Source(SMALL, classes, SIZE, mean, std, content, is_random=False, origin="the generated source domain")


def _filled(network: nn.Module, head: str, path: Path | None, config: Config) -> bytes | None:
    """The network's weights without its head, read from a file; None without one."""
    if path is None:
        return None
    faults = load_weights(network, read_weights(path), head=head, where=path, partial=config.partial_weights)
    report_unfit(faults)
    return _to_bytes(without_head(network, head).state_dict())


def _to_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """A safetensors file's content."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
