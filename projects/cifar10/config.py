"""The classifier's settings, and what a run knows beyond them. This module loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.config import RunConfig, RunFacts, option
from core.errors import UserError

_RESNETS = ("resnet18", "resnet20", "resnet50")
MODELS = ("wide", "fast", *_RESNETS, "lenet", "alexnet", "vgg11", "densenet", "mlp", "vit-tiny")
DATA = ("cifar10", "mnist", "fashion-mnist", "digits", "synthetic")


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: the network, the recipe, the augmentation, the split."""

    smoke: ClassVar[Mapping[str, Any]] = {  # under a minute on two CPU cores
        "data": "synthetic",
        "model": "fast",
        "epochs": 3,
        "batch_size": 128,
        "num_synthetic": 6_000,
        "log_every": 10,
    }
    defaults_for: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
        "optimizer": {"adam": {"lr": 0.002}, "adamw": {"lr": 0.002}},
        "data": {
            "synthetic": {"model": "fast", "epochs": 4},
            "digits": {
                "model": "fast",
                "epochs": 30,
                "batch_size": 50,
                "lr": 0.1,
                "val_fraction": 0.1,
                "flip": False,
                "test_flip": False,
            },
            "mnist": {"model": "fast", "epochs": 4, "flip": False, "test_flip": False},
            "fashion-mnist": {"model": "fast", "epochs": 8},
        },
        "model": {
            "wide": {
                "epochs": 8,
                "repeats": 0,
                "batch_size": 1000,
                "optimizer": "muon",
                "fixed_norm": True,
                "lr": 0.16,
                "momentum": 0.7,
                "weight_decay": 0.0,
                "warmup": 0.0,
                "label_smoothing": 0.2,
                "ema": 0.0,
            }
        },
    }

    data: str = option(
        "cifar10",
        f"{', '.join(DATA)} (cifar10 and both mnist are downloaded), or a folder with train/CLASS/* and test/CLASS/*",
        harmless=True,
    )
    epochs: int = option(24, "passes over the training data; fewer for easier data", low=1, harmless=True)
    repeats: int = option(1, "how often an epoch shows each image; 0: so that it has about 20,000", low=0, high=1000)
    batch_size: int = option(250, "images of one forward pass, over all ranks together", low=1)
    model: str = option("wide", f"{', '.join(MODELS)} or timm:NAME; wide has settings of its own")
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = option(
        "sgd", "SGD with Nesterov momentum, Adam, AdamW, or Muon with AdamW for the head, norms and biases"
    )
    lr: float = option(0.35, "peak learning rate (Muon wants about 0.02 without --fixed-norm)", above=0)
    fixed_norm: bool = option(False, "keep filters at the norm of an orthogonal matrix; of Muon, where norms follow")
    momentum: float = option(0.85, "momentum of SGD and Muon", low=0, below=1)
    weight_decay: float = option(0.0006, "weight decay of filters and matrices; none for biases and norms", low=0)
    schedule: Literal["one-cycle", "cosine", "step", "constant"] = option(
        "one-cycle",
        "straight up and down; warm-up and cosine; a tenth at half and again at 3/4 of the steps; or constant",
    )
    warmup: float = option(0.2, "share of the training in which the rate rises", low=0, below=1)
    label_smoothing: float = option(0.1, "share of a label's weight that goes to all classes", low=0, below=1)
    teacher: Path | None = option(None, "run folder of a larger network to learn from as well (distillation)")
    teacher_weight: float = option(0.5, "the teacher's share of the loss", low=0, high=1)
    temperature: float = option(4.0, "divides the logits of teacher and student in the teacher's part", above=0)
    crop_padding: int = option(2, "pixels that a random crop may move; borders are mirrored", low=0, high=15)
    flip: bool = option(True, "mirror half of the images, each in every other epoch")
    cutout: int = option(0, "side of the square that is blanked out, in pixels; 8 for long trainings", low=0, high=64)
    ema: float = option(0.99, "decay of the moving average of the weights per step; 0 keeps none", low=0, below=1)
    test_flip: bool = option(True, "predict from an image and its mirror image, as validation, test and export do")
    test_shift: bool = option(False, "predict also from images moved by a pixel: three times the work")
    gradient_checkpointing: bool = option(False, "compute activations twice rather than keep them: less memory")
    image_size: int = option(32, "side of the square that images are resized to, in pixels", low=16, high=512)
    val_fraction: float = option(0.05, "share of train/ used for validation where there is no val/", above=0, below=1)
    num_synthetic: int = option(9_000, "images that `synthetic` makes for training", low=100, high=1_000_000)
    resident: Literal["auto", "yes", "no"] = option(
        "auto", "hold all images in memory; auto does where they take less than 4 GB", harmless=True
    )

    def check(self) -> None:
        """Raises UserError for a model or an image size that cannot be."""
        if self.model not in MODELS and not (self.model.startswith("timm:") and self.model[5:]):
            raise UserError("unknown model", f"--model {self.model}", f"choose from {', '.join(MODELS)}, timm:NAME")
        if self.data == "cifar10" and self.image_size != 32:
            raise UserError("CIFAR-10 images are 32 pixels wide", f"--image-size {self.image_size}", "leave it out")
        if self.gradient_checkpointing and self.compile:
            both = "--gradient-checkpointing and --compile"
            raise UserError("options that exclude each other", both, "leave one out")

    def check_present(self, *, resuming: bool) -> None:
        """Raises UserError for data that is not there."""
        if self.data not in DATA and not (Path(self.data) / "train").is_dir():
            todo = f"give {', '.join(DATA)}, or a folder that holds train/CLASS/*.jpg"
            raise UserError("unknown data", f"--data {self.data}", todo)
        if self.teacher is not None and not (self.teacher / "run.json").is_file():
            raise UserError("no such run folder", f"--teacher {self.teacher}", "give one that this program made")


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What export and inference need of a run beyond its settings.

    mean, std: per channel of the training images, of values in [0, 1].
    """

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
