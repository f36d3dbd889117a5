"""The detector's settings. This module loads no torch, so a wrong flag is answered at once."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.config import RunConfig, option
from core.errors import UserError

PROJECT = "detection"
Model = Literal[
    "small",
    "ssdlite320_mobilenet_v3_large",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
]
STRIDE = 32  # both sides of what a network sees are multiples of it
LARGEST_OWN_SIZE = 320
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")
# What --smoke puts in place of the defaults: under a minute on one CPU core.
SMOKE = {
    "data": "synthetic",
    "epochs": 2,
    "num_synthetic": 480,
    "batch_size": 8,
    "log_every": 5,
    "mosaic": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: the network and where its weights begin, the augmentation, what counts as a detection."""

    data: str = option("synthetic", "synthetic, or a folder in Pascal VOC or COCO form")
    epochs: int = option(10, "passes over the training data", low=1, harmless=True)
    batch_size: int = option(8, "pictures of one forward pass, over all ranks together", low=1)
    model: Model = option("small", "small trains from scratch on a CPU; the others are torchvision's")
    weights: str = option("none", "weights to begin with: none, coco (torchvision's models), or FILE.pth|.safetensors")
    image_size: int | None = option(
        None, "longer side that pictures are brought to, in pixels (none: their own, at most 320)", low=64, high=2048
    )
    lr: float = option(0.0, "peak learning rate of AdamW; 0: 0.003 for small from scratch, else 0.0003", low=0)
    weight_decay: float = option(0.03, "weight decay of filters and matrices; none for biases and norms", low=0)
    warmup: float = option(0.05, "share of the training in which the rate rises", low=0, below=1)
    clip_norm: float | None = option(10.0, "largest norm of the whole gradient", above=0)
    ema: float = option(0.998, "decay of the moving average of the weights per step; 0 keeps none", low=0, below=1)
    repeats: int = option(1, "times that each picture comes in an epoch; for small sets", low=1, high=1000)
    mosaic: float = option(0.5, "share of training pictures put together from four", low=0, high=1)
    mosaic_until: float = option(0.85, "share of the epochs after which no more mosaics are made", low=0, high=1)
    zoom: float = option(1.4, "pictures are shown up to this many times larger, or smaller", low=1, high=4)
    flip: bool = option(True, "mirror half of the pictures, left to right")
    flip_vertical: bool = option(False, "mirror half of the pictures, top to bottom; where there is no up")
    color: float = option(0.25, "how far brightness, contrast, saturation and tint may move", low=0, high=1)
    score_threshold: float = option(0.05, "boxes with a lower score are not given at all", low=0.001, below=1)
    overlap: float = option(0.6, "of two boxes of a class with a larger IoU the better one stays", above=0, below=1)
    max_boxes: int = option(100, "most boxes in a picture", low=1, high=1000)
    val_fraction: float = option(0.15, "share of the pictures for validation where the data has none", above=0, below=1)
    on_fault: Literal["stop", "skip"] = option(
        "stop", "a faulty annotation ends the program, or is listed and left out"
    )
    num_synthetic: int = option(1_000, "pictures that `synthetic` draws for training", low=20, high=1_000_000)
    resident: Literal["auto", "yes", "no"] = option(
        "auto", "hold all pictures decoded in memory; auto does where they take less than 4 GB", harmless=True
    )

    @property
    def peak_lr(self) -> float:
        """The learning rate after the warm-up."""
        return self.lr or (0.003 if self.model == "small" and self.weights == "none" else 0.0003)

    def check(self) -> None:
        """Raises UserError where model and weights do not fit together."""
        if self.weights == "coco" and self.model == "small":
            todo = "choose a model of torchvision, or leave --weights out"
            raise UserError("there are no COCO weights of this model", "--model small", todo)

    def check_ready(self, resume: bool) -> None:
        """Raises UserError for data and weights that are not there, and for a missing package: before a training, not
        whenever settings are read, as a run can be exported where its data is not."""
        if self.data != "synthetic" and not (self.data and Path(self.data).is_dir()):
            todo = "give synthetic, or a folder in Pascal VOC or COCO form"
            raise UserError("unknown data", f"--data {self.data}", todo)
        if self.weights not in ("none", "coco") and not resume:
            path = Path(self.weights)
            if path.suffix not in WEIGHT_SUFFIXES or not path.is_file():
                todo = f"give none, coco, or a file that ends in {', '.join(WEIGHT_SUFFIXES)}"
                raise UserError("no such weights", f"--weights {self.weights}", todo)
        for package in ("torchvision", "faster_coco_eval"):
            if importlib.util.find_spec(package) is None:
                raise UserError("a package is missing", package, "python -m pip install -e .[detection]")
