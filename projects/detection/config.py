"""The detector's settings, and what a run and an exported file know beyond them. This module loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.config import RunConfig, RunFacts, option
from core.errors import UserError

TASK = "object detection"
Model = Literal[
    "small",
    "ssdlite320_mobilenet_v3_large",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
]
STRIDE = 32  # both sides of what a network sees are multiples of it
LARGEST_OWN_SIZE = 320  # pixels: the longer side where --image-size is not given and the images are larger
LARGEST_IMAGE_SIZE = 2048
BACKBONE_PREFIX = "package:"
OnFault = Literal["stop", "skip", "clip"]
_WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: the network and its first weights, the augmentation, what counts as a detection."""

    smoke: ClassVar[Mapping[str, Any]] = {  # under a minute on one CPU core
        "data": "synthetic",
        "epochs": 2,
        "num_synthetic": 480,
        "batch_size": 8,
        "log_every": 5,
        "mosaic": 0.0,
    }

    data: str = option("synthetic", "synthetic, or a folder in Pascal VOC or COCO form", harmless=True)
    epochs: int = option(10, "passes over the training data", low=1, harmless=True)
    batch_size: int = option(8, "images of one forward pass, over all ranks together", low=1)
    model: Model = option("small", "small, which trains from scratch on a CPU, or one of torchvision's")
    weights: str = option("none", "weights to start from: none, coco (torchvision's models), or FILE.pth|.safetensors")
    backbone: str = option(
        "none",
        "under the pyramid of small: none, its own layers; package:efficientnet_lite0 (1, 2), pretrained on ImageNet",
    )
    image_size: int | None = option(
        None,
        "longer side of what the network sees, in pixels; none stands for the images' own, at most 320",
        low=64,
        high=LARGEST_IMAGE_SIZE,
    )
    lr: float = option(0.0, "peak learning rate of AdamW; 0: 0.003 for small from scratch, else 0.0003", low=0)
    backbone_lr: float = option(0.1, "a pretrained backbone's rate as a share of the head's", above=0, high=10)
    weight_decay: float = option(0.03, "weight decay of filters and matrices; none for biases and norms", low=0)
    warmup: float = option(0.05, "share of the training in which the rate rises", low=0, below=1)
    clip_norm: float | None = option(10.0, "largest norm of the whole gradient", above=0)
    ema: float = option(0.998, "decay of the moving average of the weights per step; 0 keeps none", low=0, below=1)
    repeats: int = option(1, "how often an epoch shows each image; for small sets", low=1, high=1000)
    mosaic: float = option(0.5, "share of training samples that are put together from four images", low=0, high=1)
    mosaic_until: float = option(0.85, "share of the epochs with mosaics; the rest has none", low=0, high=1)
    zoom: float = option(1.4, "images are shown up to this many times larger or smaller", low=1, high=4)
    flip: bool = option(True, "mirror half of the images, left to right")
    flip_vertical: bool = option(False, "mirror half of the images, top to bottom; for images without an up")
    color: float = option(
        0.25, "how far brightness, contrast, saturation and tint are changed at random", low=0, high=1
    )
    score_threshold: float = option(0.05, "boxes with a lower score are never detections", low=0.001, below=1)
    overlap: float = option(
        0.6,
        "of two boxes of a class with a larger IoU, only the one with the better score is a detection",
        above=0,
        below=1,
    )
    max_boxes: int = option(100, "most detections in an image", low=1, high=1000)
    val_fraction: float = option(0.15, "share of the images for validation where the data has none", above=0, below=1)
    on_fault: OnFault = option(
        "stop",
        "a fault in the data ends the program; skip: it is listed and not used; clip: boxes are cut at the border",
    )
    num_train: int | None = option(
        None, "learn from this many of the training images, drawn by the seed: what fewer annotations give", low=1
    )
    num_synthetic: int = option(1_000, "images that `synthetic` draws for training", low=20, high=1_000_000)
    resident: Literal["auto", "yes", "no"] = option(
        "auto", "hold all images decoded on the device; auto does where they take less than 4 GB", harmless=True
    )

    @property
    def peak_lr(self) -> float:
        """The learning rate after the warm-up."""
        return self.lr or (0.003 if self.model == "small" and self.weights == "none" else 0.0003)

    def check(self) -> None:
        """Raises UserError where model, weights and backbone do not fit together."""
        if self.backbone != "none" and not self.backbone.startswith(BACKBONE_PREFIX):
            raise UserError("unknown backbone", f"--backbone {self.backbone}", "choose none or package:NAME")
        if self.backbone != "none" and self.model != "small":
            where = f"--backbone {self.backbone} --model {self.model}"
            raise UserError("options that exclude each other", where, "leave one out")
        if self.weights == "coco" and self.model == "small":
            todo = "choose a model of torchvision, or leave --weights out"
            raise UserError("there are no COCO weights of this model", "--model small", todo)

    def check_present(self, *, resuming: bool) -> None:
        """Raises UserError for data and weights that are not there."""
        if self.data != "synthetic" and not (self.data and Path(self.data).is_dir()):
            todo = "give synthetic, or a folder in Pascal VOC or COCO form"
            raise UserError("unknown data", f"--data {self.data}", todo)
        if self.weights not in ("none", "coco") and not resuming:
            path = Path(self.weights)
            if path.suffix not in _WEIGHT_SUFFIXES or not path.is_file():
                todo = f"give none, coco, or a file that ends in {', '.join(_WEIGHT_SUFFIXES)}"
                raise UserError("no such weights", f"--weights {self.weights}", todo)


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What export needs of a run beyond its settings.

    canvas: (height, width) of what the network sees, in pixels. mean, std: per channel, of values in [0, 1].
    data_sha256: of all image files and boxes, before splitting.
    """

    classes: tuple[str, ...]
    canvas: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Facts):
    """What the exported file knows too. threshold: the score from which on a detection is worth showing."""

    threshold: float
