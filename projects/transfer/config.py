"""The fine-tuning's settings, and what a run knows beyond them. This module loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.config import RunConfig, RunFacts, option
from core.errors import UserError
from core.program import ClassifierExportOptions

TASK = "image classification"
SYNTHETIC = "synthetic"
FEW_IMAGES = 1000
_KINDS = ("package", "timm", "torchvision", "run")
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: where the backbone comes from, what of it is trained and how, what is done to images."""

    smoke: ClassVar[Mapping[str, Any]] = {  # under a minute on one CPU core
        "data": SYNTHETIC,
        "backbone": "source",
    }
    defaults_for: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
        "data": {  # crops would cut the shapes
            SYNTHETIC: {"epochs": 20, "batch_size": 32, "lr": 0.01, "augment": "light", "strategy": "full"}
        }
    }

    data: str = option(
        SYNTHETIC,
        "synthetic, or a folder: CLASS/*, or train/CLASS/* with val/ and test/ where there are such",
        harmless=True,
    )
    backbone: str = option(
        "auto",
        "package:efficientnet_lite0 (1, 2), timm:NAME, torchvision:NAME, run:RUN_DIR, source (learns a generated "
        "domain first), or auto: source for synthetic data; for a folder timm:resnet18 where its weights are in the "
        "cache, else package:efficientnet_lite0",
    )
    weights: Path | None = option(None, "file of the backbone's weights (.safetensors, .pth) instead of a download")
    partial_weights: bool = option(False, "take a weights file that fits in part, and list what does not")
    from_scratch: bool = option(False, "the same network with random weights: what the pretraining is worth")
    strategy: Literal["auto", "full", "head", "gradual"] = option(
        "auto",
        "train everything, only the new head, or one layer more after the other from the head down; auto: for a folder "
        f"of fewer than {FEW_IMAGES:,} training images head, which forgets nothing, else full",
    )
    thaw: float = option(0.5, "gradual: share of the training after which everything is trained", above=0, high=1)
    norms: Literal["train", "keep"] = option(
        "train", "statistics of the backbone's batch norms: of each batch, or kept as the pretraining left them"
    )
    epochs: int = option(30, "passes over the training images", low=1, harmless=True)
    batch_size: int = option(24, "images of one forward pass, over all ranks together", low=1)
    log_every: int = option(200, "steps between lines of metrics.jsonl, beside one an epoch", low=1)
    optimizer: Literal["adamw", "sgd"] = option("adamw", "AdamW, or SGD with Nesterov momentum (lr about 0.02)")
    lr: float = option(0.001, "peak learning rate of the head", above=0)
    backbone_lr: float = option(0.3, "the backbone's peak rate as a share of the head's", above=0, high=10)
    layer_decay: float = option(
        1.0, "factor of the rate from each layer of the backbone to the one below it", above=0, high=1
    )
    weight_decay: float = option(0.05, "weight decay of filters and matrices; none for biases and norms", low=0)
    momentum: float = option(0.9, "momentum of SGD", low=0, below=1)
    warmup: float = option(
        0.15, "share of the training in which the rate rises; then it falls as a cosine", low=0, below=1
    )
    dropout: float = option(0.0, "dropout before the head", low=0, below=1)
    ema: float = option(0.98, "decay of the moving average of the weights per step; 0 keeps none", low=0, below=1)
    label_smoothing: float = option(0.1, "share of a label's weight that goes to all classes", low=0, below=1)
    balance: Literal["none", "weights", "sampler"] = option(
        "none", "rare classes: as they are, weighed in the loss, or drawn as often as the others"
    )
    image_size: int = option(
        0, "side of the square that the network sees, in pixels; 0: the backbone's own", low=0, high=1024
    )
    crop: float = option(1.0, "share of a image's shorter side that this square is cut from", low=0.5, high=1)
    augment: Literal["none", "light", "crop", "rand"] = option(
        "crop", "light: shift and flip; crop: random part and flip, brightness, contrast; rand: crop and RandAugment"
    )
    crop_area: float = option(0.35, "crop, rand: smallest share of the image's area", above=0, high=1)
    jitter: float = option(0.3, "crop, rand: largest change of brightness and contrast", low=0, high=1)
    rand_ops: int = option(2, "rand: operations on a image", low=1, high=8)
    rand_magnitude: int = option(9, "rand: strength of the operations", low=0, high=30)
    mixup: float = option(0.0, "alpha of mixup; 0: none", low=0, high=10)
    cutmix: float = option(0.0, "alpha of cutmix; 0: none. With both, each batch has one of the two", low=0, high=10)
    test_flip: bool = option(True, "predict from an image and its mirror image, as validation, test and export do")
    cache: Literal["auto", "yes", "no"] = option("auto", "head: compute the backbone's features once, before training")
    views: int = option(
        4, "head: fixed augmented views of each image, taken in turn; 0: new ones each epoch", low=0, high=100
    )
    val_fraction: float = option(0.15, "share of the training images cut off for validation", above=0, high=0.5)
    test_fraction: float = option(0.2, "share cut off for the test where no folder is for it", above=0, high=0.5)
    choose_by: Literal["loss", "accuracy"] = option(
        "loss", "what chooses the best checkpoint, on the validation images; few tell losses apart"
    )
    on_fault: Literal["stop", "skip"] = option("stop", "a broken image: name it and stop, or list and skip all")
    adapt: Literal["none", "adabn", "coral", "dann"] = option(
        "none",
        "to --target: adabn, norm statistics of its images afterwards; in training coral, like covariances, or dann, "
        "features that do not tell the domain",
    )
    coral_weight: float = option(10.0, "coral: weight of the distance between the covariances of logits", above=0)
    dann_weight: float = option(0.1, "dann: weight of the domain classifier's loss", above=0)
    target: str | None = option(None, "folder of unlabeled images to adapt to, or synthetic")
    num_synthetic: int = option(160, "images that `synthetic` makes for training and validation", low=60, high=100_000)
    resident: Literal["auto", "yes", "no"] = option(
        "auto", "hold all images in memory; auto does where they take less than 4 GB", harmless=True
    )

    def check(self) -> None:
        """Raises UserError for a backbone that cannot be, and for settings that do not fit together."""
        kind, _, name = self.backbone.partition(":")
        if self.backbone not in ("auto", "source") and not (kind in _KINDS and name):
            todo = "choose package:NAME, timm:NAME, torchvision:NAME, run:RUN_DIR, source, or auto"
            raise UserError("unknown backbone", f"--backbone {self.backbone}", todo)
        if self.weights is not None and (self.from_scratch or self.library is None or kind == "package"):
            other = "--from-scratch" if self.from_scratch else f"--backbone {self.backbone}"
            raise UserError("options that exclude each other", f"--weights and {other}", "leave one out")
        if self.from_scratch and self.strategy not in ("auto", "full"):
            todo = "give --strategy full"
            raise UserError("random layers would stay random", f"--from-scratch --strategy {self.strategy}", todo)
        if self.from_scratch and self.norms == "keep":
            where = "--from-scratch --norms keep"
            raise UserError("random layers have no statistics to keep", where, "give --norms train")
        if self.cache == "yes" and self.strategy != "head":
            where = f"--cache yes --strategy {self.strategy}"
            raise UserError("features change in training", where, "give --strategy head")
        if self.cache == "yes" and not self.caches:
            reason = "--mixup or --cutmix" if self.mixes else "--views 0"
            todo = "leave one out, or give --cache no"
            raise UserError("images differ from epoch to epoch", f"--cache yes with {reason}", todo)
        if (self.adapt == "none") != (self.target is None):
            given = "--target" if self.target is not None else f"--adapt {self.adapt}"
            raise UserError("half of a pair", given, "--adapt adabn (coral, dann) and --target DIR go together")
        if self.adapts_in_training and self.strategy == "head":
            where = f"--adapt {self.adapt} --strategy head"
            raise UserError("a frozen backbone cannot be adapted by training", where, "give --strategy full")

    def check_present(self, *, resuming: bool) -> None:
        """Raises UserError for a folder, file or library that a training needs and that is not there."""
        for flag, folder in (("--data", self.data), ("--target", self.target)):
            if folder not in (None, SYNTHETIC) and not (folder and Path(folder).is_dir()):
                raise UserError("no such folder", f"{flag} {folder}", "give synthetic, or a folder of images")
        if resuming:  # the backbone stands in the run's own folder
            return
        kind, _, name = self.backbone.partition(":")
        if kind == "run" and not Path(name).is_dir():
            raise UserError("no such run", f"--backbone {self.backbone}", "give the folder of a run")
        if self.weights is not None and not (self.weights.suffix in _WEIGHT_SUFFIXES and self.weights.is_file()):
            todo = f"give a file of the kinds {', '.join(_WEIGHT_SUFFIXES)}"
            raise UserError("no such weights file", f"--weights {self.weights}", todo)
        needed = {"--backbone": self.library, "--augment rand": "torchvision" if self.augment == "rand" else None}
        for flag, library in needed.items():
            if library is not None and find_spec(library) is None:
                todo = "python -m pip install -e ., or choose without it"
                raise UserError("a library is missing", f"{library}, for {flag}", todo)

    def resolved(self, num_images: int) -> "Config":
        """The settings with the strategy that auto takes for so many training images."""
        if self.strategy != "auto":
            return self
        trains_all = self.from_scratch or self.adapts_in_training or num_images >= FEW_IMAGES
        return replace(self, strategy="full" if trains_all else "head")

    @property
    def library(self) -> str | None:
        """The library that the backbone is from, if it is from one."""
        kind = self.backbone.partition(":")[0]
        if kind == "auto":
            return None if self.data == SYNTHETIC else "timm"
        return {"package": "timm", "timm": "timm", "torchvision": "torchvision"}.get(kind)

    @property
    def adapts_in_training(self) -> bool:
        """Whether batches hold target images as well."""
        return self.adapt in ("coral", "dann")

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def num_views(self) -> int:
        """Fixed views of each image that training shows in turn; 0 where each epoch has its own."""
        if self.augment == "none":
            return 1
        return self.views if self.strategy == "head" else 0

    @property
    def caches(self) -> bool:
        """Whether the backbone's features are computed once."""
        return self.strategy == "head" and self.cache != "no" and not self.mixes and self.num_views > 0


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What a resumed run, an export and a further fine-tuning need beyond the settings.

    model: the backbone's architecture, timm:NAME, torchvision:NAME, small, or run:NAME for one whose file stands in the
    run folder. num_source_classes: of the head that was taken off. source_image_size: what the backbone was trained on.
    weights: where they are from, for people. weights_sha256: of backbone.safetensors; None where there is no such file.
    image_size: side of the square that the network sees. side: of the one that it is the center of. mean, std: what
    images are normalized with, of values in [0, 1]. num_skipped: broken images, listed in skipped.txt. data_sha256: of
    the images before they are split.
    """

    num_source_classes: int
    source_image_size: int
    weights: str
    weights_sha256: str | None
    classes: tuple[str, ...]
    image_size: int
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_val: int
    num_skipped: int


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Facts):
    """What the exported file knows besides. adapted: whether it has the norm statistics that adapt has estimated."""

    adapted: bool


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ClassifierExportOptions):
    """The export's flags."""

    adapted: bool = option(False, "with the norm statistics that adapt has estimated")
