"""Finds the pretrained backbone: in an installed package, timm, torchvision, a run, or learns a generated domain."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.errors import UserError
from core.plain import from_plain
from core.run_record import read_run
from core.stored_run import load_run
from core.vision import network_file
from core.vision.packaged_network import packaged_network
from core.weights import read_weights, torch_hub_file
from projects.transfer.backbone import FILE_NAME, Source, kept_content, kept_source
from projects.transfer.config import SYNTHETIC, Config, Facts
from projects.transfer.model import SMALL, build_network, name_of_head, without_head
from projects.transfer.weights import cached_hub_file, hub_file, load_weights, report_unfit

_OWN_NETWORK, _CACHED_NETWORK, _CACHED_REPOSITORY = "efficientnet_lite0", "resnet18", "timm/resnet18.a1_in1k"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def find_source(config: Config, accelerator: Accelerator, resumed: Path | None) -> Source:
    """The backbone that the settings name; for a run that is resumed, the one in its folder."""
    if resumed is not None:
        facts = from_plain(Facts, read_run(resumed, config.project)["facts"], resumed / "run.json")
        if facts.weights_sha256 is None or (resumed / FILE_NAME).exists():  # else it was stopped before it had kept it
            return kept_source(resumed, facts, config)
    kind, _, rest = (_automatic(config) if config.backbone == "auto" else config.backbone).partition(":")
    if kind == "source":
        source = _from_generated_domain(config, accelerator)
    elif kind == "run":
        source = _from_run(Path(rest), config)
    else:
        find = {"package": _from_package, "timm": _from_timm, "torchvision": _from_torchvision}[kind]
        source = find(rest, config)
    if not config.from_scratch:
        return source
    content = source.content if source.architecture.startswith("run:") else None
    return replace(source, mean=None, std=None, content=content, is_random=True, origin="random")


def _automatic(config: Config) -> str:
    """The backbone that --backbone auto stands for."""
    if config.data == SYNTHETIC:
        return "source"
    if config.weights is not None or cached_hub_file(_CACHED_REPOSITORY) is not None:
        return f"timm:{_CACHED_NETWORK}"
    return f"package:{_OWN_NETWORK}"


def _from_package(name: str, config: Config) -> Source:
    """A network whose weights are installed with a package."""
    packaged = packaged_network(name, f"--backbone package:{name}")
    architecture, content = f"timm:{packaged.model}", None
    if not config.from_scratch:
        network, head = build_network(architecture, 1000)
        network.load_state_dict(packaged.weights())
        content = _to_bytes(without_head(network, head).state_dict())
    constants = 1000, packaged.image_size, packaged.mean, packaged.std
    return Source(architecture, *constants, content, is_random=False, origin=packaged.distribution)


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
    content = None if facts.weights_sha256 is None else kept_content(run_dir, facts.weights_sha256)
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
