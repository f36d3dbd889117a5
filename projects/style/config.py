"""The style transfer's settings, and what a run knows beyond them. This module loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.config import RunConfig, RunFacts, option
from core.errors import UserError

TASK = "style transfer"
SYNTHETIC = "synthetic"
MAX_STYLES = 64
STEPS_PER_EPOCH_OF_OPTIMIZE = 25
_VGGS = ("vgg16", "vgg19")


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: the method, the styles, the losses' feature network and weights, the network, the crops."""

    smoke: ClassVar[Mapping[str, Any]] = {  # under a minute on two CPU cores
        "data": SYNTHETIC,
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

    method: Literal["feedforward", "optimize"] = option(
        "feedforward", "train a network for all photographs, or change the pixels of one"
    )
    data: str = option(
        SYNTHETIC,
        "synthetic, a folder of photographs (train/ and val/ where it has them), or an image file for optimize",
        harmless=True,
    )
    style: tuple[str, ...] = option((SYNTHETIC,), "style images or folders of them, or synthetic", harmless=True)
    on_fault: Literal["stop", "skip"] = option(
        "stop", "a broken photograph: stop before any work begins, or leave it out and name it", harmless=True
    )
    features: Literal["random", "lite0", "vgg16", "vgg19"] = option(
        "random",
        "network that the losses compare features of: random filters, not trained; or pretrained on ImageNet, "
        "EfficientNet-Lite0, installed with this package, or a VGG, downloaded",
    )
    weights: Path | None = option(
        None, "file of VGG weights (.pth, .safetensors) in place of torchvision's cache", harmless=True
    )
    content_weight: float = option(1.0, "weight of the content loss", low=0)
    style_weight: float = option(5.0, "weight of the style loss", low=0)
    tv_weight: float = option(3.0, "weight of the total variation, which makes the result smoother", low=0)
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
        256,
        "side of the photographs that crops are taken from, in pixels; of optimize, the result's shorter side",
        low=32,
        high=2048,
    )
    crop_size: int = option(192, "side of a training crop, in pixels", low=32, high=1024)
    crops: int = option(5, "crops of each photograph in an epoch", low=1, high=1000)
    style_size: int = option(
        384, "shorter side of a style image, in pixels: the size of its strokes", low=32, high=2048
    )
    eval_size: int = option(256, "side of held-out photographs, in pixels", low=32, high=1024)
    num_held_out: int = option(8, "photographs that are held out, of val/ where there is one", low=1, high=1000)
    num_synthetic: int = option(64, "photographs that `synthetic` makes", low=16, high=100_000)
    resident: Literal["auto", "yes", "no"] = option(
        "auto", "hold all photographs in memory; auto does where they take less than 4 GB", harmless=True
    )
    compare: int = option(
        0, "held-out photographs to optimize as well, in 300 steps, for comparison", low=0, high=1000, harmless=True
    )

    @property
    def peak_lr(self) -> float:
        """The peak learning rate; the method's own where none is given."""
        return self.lr or (0.03 if self.method == "optimize" else 0.003)

    def check(self) -> None:
        """Raises UserError for settings that do not fit together."""
        if self.weights is not None and self.features not in _VGGS:
            raise UserError("weights without a VGG", f"--weights {self.weights}", "add --features vgg19 or vgg16")
        if self.method == "optimize" and self.compare:
            raise UserError("optimize has nothing to compare with", f"--compare {self.compare}", "leave it out")
        if self.method == "optimize" and len(self.style) > 1:
            raise UserError("optimize takes one style", f"--style {' '.join(self.style)}", "give one image")
        if self.method == "feedforward" and self.crop_size > self.image_size:
            where = f"--crop-size {self.crop_size} --image-size {self.image_size}"
            raise UserError("a crop is larger than a photograph", where, "give a smaller crop")
        if not self.content_weight + self.style_weight:
            raise UserError("nothing to learn", "--content-weight 0 --style-weight 0", "give one of them")

    def check_present(self, *, resuming: bool) -> None:
        """Raises UserError for photographs or style images that are not there."""
        path, is_one = Path(self.data), self.method == "optimize"
        if self.data != SYNTHETIC and not (self.data and (path.is_file() if is_one else path.is_dir())):
            kind = "an image file" if is_one else "a folder of photographs"
            raise UserError("unknown data", f"--data {self.data}", f"give {kind}, or synthetic")
        for name in self.style:
            style_path = Path(name)
            if name != SYNTHETIC and not (name and (style_path.is_file() or style_path.is_dir())):
                raise UserError("no such style image", f"--style {name}", "give images, a folder, or synthetic")
            if is_one and style_path.is_dir():
                raise UserError("optimize takes one style", f"--style {name}", "give one image")


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What export and inference need of a run beyond its settings.

    model: the network's name. features: what the losses compared; features_sha256: of its weights. styles: names, in
    the order of the network's styles. style_sha256: of the style images' pixels as they were used. data_sha256: of the
    photographs, before splitting.
    """

    features: str
    features_sha256: str
    styles: tuple[str, ...]
    style_sha256: tuple[str, ...]
    num_held_out: int


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Facts):
    """What inference needs besides.

    channels: of all norms, the length of `statistics`. margin: how far an output pixel depends on its surroundings, in
    pixels. stride: what the positions of tiles have to be multiples of, in pixels. min_side: of an image, in pixels.
    """

    channels: int
    margin: int
    stride: int
    min_side: int
