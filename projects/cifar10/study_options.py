"""The flags of the studies. This module loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from core.config import Device, Precision, option
from projects.cifar10.config import MODELS


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The flags of every study; a study's own class adds to them, and redeclares one to change its default."""

    smoke_values: ClassVar[Mapping[str, Any]] = {}

    data: str = option("cifar10", "as of the train program: cifar10, digits, synthetic, a folder …")
    batch_size: int = option(64, "images of a step")
    image_size: int = option(32, "side of the square that images are resized to, in pixels")
    num_synthetic: int = option(3_000, "images that `synthetic` makes")
    seed: int = option(0, "seed of everything random; where a study has several, the first of them")
    device: Device = option("auto", "where to compute; auto takes a GPU if there is one")
    precision: Precision = option("auto", "auto takes bf16 where the device computes it natively, fp32 elsewhere")
    output: Path | None = option(None, "folder to write; none stands for runs/<project>/study-NAME")
    smoke: bool = option(False, "a minute at most, on generated images: shows that it works, and no more")


@dataclass(frozen=True, kw_only=True)
class InitOptions(StudyOptions):
    """Of the study of initializations."""

    smoke_values: ClassVar[Mapping[str, Any]] = {"models": ("alexnet",), "max_steps": 3, "batch_size": 32}

    models: tuple[str, ...] = option(("resnet20", "alexnet"), "networks, such as one with norms and one without")
    max_steps: int = option(40, "steps of each training")
    lr: float = option(0.05, "peak learning rate of SGD with Nesterov momentum")


@dataclass(frozen=True, kw_only=True)
class LayersOptions(StudyOptions):
    """Of the studies of gradients and activations."""

    smoke_values: ClassVar[Mapping[str, Any]] = {"models": ("resnet20",), "max_steps": 4, "batch_size": 32}

    models: tuple[str, ...] = option(("resnet20", "alexnet"), "networks, such as one with norms and one without")
    max_steps: int = option(100, "steps of the training, before, in and after which it is looked at")
    lr: float = option(0.05, "peak learning rate of SGD with Nesterov momentum")


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions(StudyOptions):
    """Of the study of precisions."""

    smoke_values: ClassVar[Mapping[str, Any]] = {
        "max_steps": 3,
        "seeds": 1,
        "batch_size": 8,  # small images and batches: some processors emulate fp16
        "image_size": 16,
        "compile": False,
    }

    model: str = option("fast", "the network")
    max_steps: int = option(40, "steps of each training")
    seeds: int = option(3, "trainings of each precision, with seeds from --seed on")
    compile: bool = option(True, "with and without torch.compile; --no-compile leaves it out")


@dataclass(frozen=True, kw_only=True)
class OptimizersOptions(StudyOptions):
    """Of the study of optimizers and schedules."""

    smoke_values: ClassVar[Mapping[str, Any]] = {"max_steps": 4, "tuning_steps": 2, "batch_size": 32}

    model: str = option("lenet", "the network")
    max_steps: int = option(200, "steps of each training")
    tuning_steps: int = option(60, "steps of each of four trainings that choose an optimizer's learning rate")


@dataclass(frozen=True, kw_only=True)
class NetworksOptions(StudyOptions):
    """Of the comparison of networks."""

    smoke_values: ClassVar[Mapping[str, Any]] = {"models": ("lenet", "mlp"), "seconds": 1.0, "batch_size": 32}

    models: tuple[str, ...] = option(MODELS, "the networks")
    seconds: float = option(60.0, "training time of each, of the processor's or a GPU's")
    lr: float = option(0.002, "peak learning rate of AdamW")


@dataclass(frozen=True, kw_only=True)
class SmallerOptions(StudyOptions):
    """Of the comparison of ways to a smaller network."""

    smoke_values: ClassVar[Mapping[str, Any]] = {"max_steps": 3, "tuning_steps": 2, "batch_size": 32}

    model: str = option("fast", "the network; one with norms")
    max_steps: int = option(1_500, "steps of each training from the start")
    tuning_steps: int = option(300, "steps of the training after a network was made smaller")
    lr: float = option(0.1, "peak learning rate of SGD with Nesterov momentum")
    tuning_lr: float = option(0.02, "the same, of the training after a network was made smaller")
    channels: float = option(0.5, "share of the channels that is removed", above=0, below=1)
    weights: float = option(0.75, "share of the weights that is masked", above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(StudyOptions):
    """Of the comparison of train steps with and without gradient checkpointing."""

    smoke_values: ClassVar[Mapping[str, Any]] = {"models": ("fast",), "max_steps": 1, "batch_size": 8}

    models: tuple[str, ...] = option(("fast", "resnet20", "vgg11", "vit-tiny"), "networks that are sequences of stages")
    max_steps: int = option(5, "steps whose speed is measured")


OPTIONS: Mapping[str, type[StudyOptions]] = {
    "init": InitOptions,
    "gradients": LayersOptions,
    "activations": LayersOptions,
    "precision": PrecisionOptions,
    "optimizers": OptimizersOptions,
    "networks": NetworksOptions,
    "smaller": SmallerOptions,
    "memory": MemoryOptions,
}
