"""The style transfer's settings. This module loads no torch, so a wrong flag is answered at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.config import RunConfig, option
from core.errors import UserError

PROJECT = "style"
SYNTHETIC = "synthetic"
VGGS = ("vgg16", "vgg19")
MAX_STYLES = 64
STEPS_OF_AN_EPOCH = 25  # of optimize, which has one batch
# What --smoke puts in place of the defaults: under a minute on two CPU cores.
SMOKE = {
    "data": SYNTHETIC,
    "style": SYNTHETIC,
    "num_synthetic": 24,
    "epochs": 3,
    "crops": 6,
    "batch_size": 4,
    "crop_size": 64,
    "image_size": 96,
    "eval_size": 64,
    "style_size": 96,
    "width": 8,
    "blocks": 2,
    "lr": 0.005,
    "log_every": 6,
}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: the way, the styles, what losses look at and weigh, the network, the crops."""

    method: Literal["feedforward", "optimize"] = option(
        "feedforward", "train a network for all photographs, or change the pixels of one"
    )
    data: str = option(
        SYNTHETIC, "synthetic, a folder of photographs (train/ and val/ where there are such), or a file for optimize"
    )
    style: str = option(SYNTHETIC, "pictures or a folder of them, `A.jpg B.jpg` or `A.jpg,B.jpg`; synthetic: drawn")
    features: Literal["random", "vgg16", "vgg19"] = option(
        "random", "what the losses look at: random filters, which are not pretrained, or a VGG pretrained on ImageNet"
    )
    weights: Path | None = option(None, "file of VGG weights (.pth, .safetensors) in place of torchvision's cache")
    content_weight: float = option(1.0, "weight of the content loss", low=0)
    style_weight: float = option(5.0, "weight of the style loss", low=0)
    tv_weight: float = option(3.0, "weight of total variation, which smooths", low=0)
    epochs: int = option(12, "passes over the photographs; of optimize, 25 steps each", low=1, harmless=True)
    batch_size: int = option(2, "crops of one forward pass, over all ranks together", low=1)
    lr: float = option(0.0, "peak learning rate; 0: 0.003, of optimize 0.03", low=0)
    warmup: float = option(
        0.05, "share of the training in which the rate rises; then it falls as a cosine", low=0, below=1
    )
    clip_norm: float | None = option(1.0, "largest norm of the whole gradient", above=0)
    ema: float = option(0.99, "decay of the moving average of the weights per step; 0 keeps none", low=0, below=1)
    log_every: int = option(25, "steps between lines of metrics.jsonl", low=1)
    width: int = option(16, "channels at full size; twice at half, four times at quarter size", low=4, high=128)
    blocks: int = option(5, "residual blocks at quarter size", low=1, high=16)
    image_size: int = option(
        256, "shorter side of a photograph in memory, in pixels; of optimize, of the result", low=32, high=2048
    )
    crop_size: int = option(192, "side of a training crop, in pixels", low=32, high=1024)
    crops: int = option(5, "crops of each photograph in an epoch", low=1, high=1000)
    style_size: int = option(
        384, "shorter side of a style picture, in pixels: the size of its strokes", low=32, high=2048
    )
    eval_size: int = option(256, "side of held-out photographs, in pixels", low=32, high=1024)
    num_held_out: int = option(8, "photographs that are held out, where there is no val/", low=1, high=1000)
    num_synthetic: int = option(64, "photographs that `synthetic` draws", low=16, high=100_000)
    compare: int = option(
        0, "held-out photographs to optimize as well, in 300 steps, for comparison", low=0, high=1000, harmless=True
    )

    @property
    def peak_lr(self) -> float:
        """The learning rate, of the method where none is given."""
        return self.lr or (0.03 if self.method == "optimize" else 0.003)

    def check(self) -> None:
        """Raises UserError for data, styles or features that cannot be."""
        self.check_data()
        if self.weights is not None and self.features not in VGGS:
            raise UserError("weights without a VGG", f"--weights {self.weights}", "add --features vgg19 or vgg16")
        if self.method == "optimize" and self.compare:
            raise UserError("optimize has nothing to compare with", f"--compare {self.compare}", "leave it out")
        if self.method == "feedforward" and self.crop_size > self.image_size:
            where = f"--crop-size {self.crop_size} --image-size {self.image_size}"
            raise UserError("a crop is larger than a photograph", where, "give a smaller crop")
        if not self.content_weight + self.style_weight:
            raise UserError("nothing to learn", "--content-weight 0 --style-weight 0", "give one of them")

    def check_data(self) -> None:
        """Raises UserError for photographs or styles that are not there."""
        path, is_one = Path(self.data), self.method == "optimize"
        if self.data != SYNTHETIC and not (self.data and (path.is_file() if is_one else path.is_dir())):
            kind = "a picture" if is_one else "a folder of photographs"
            raise UserError("unknown data", f"--data {self.data}", f"give {kind}, or synthetic")
        styles = self.styles()
        for name in styles:
            if name != SYNTHETIC and not (name and Path(name).exists()):
                raise UserError("no such style picture", f"--style {name}", "give pictures, a folder, or synthetic")
        if is_one and (len(styles) > 1 or Path(styles[0]).is_dir()):
            raise UserError("optimize takes one style", f"--style {self.style}", "give one picture")

    def styles(self) -> Sequence[str]:
        """The names in --style."""
        return self.style.split(",")


def join_styles(argv: Sequence[str]) -> list[str]:
    """A command line on which `--style A B C` is `--style A,B,C`, as settings have it."""
    joined: list[str] = []
    in_styles = False
    for word in argv:
        if in_styles and not word.startswith("-") and joined[-1] != "--style":
            joined[-1] += f",{word}"
        else:
            in_styles = word == "--style" or (in_styles and not word.startswith("-"))
            joined.append(word)
    return joined
