"""The GAN's settings. This module loads no torch, so a wrong flag is answered at once."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from core.config import RunConfig, option
from core.errors import UserError

PROJECT = "gan"
SYNTHETIC, DIGITS = "synthetic", "digits"
IMAGE_SIZES = (8, 16, 32, 64, 128, 256)
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # of torch-fidelity
AUGMENTATIONS = ("color", "translation", "cutout")
# What --smoke puts in place of the defaults: under a minute on one CPU core.
SMOKE = {
    "data": SYNTHETIC,
    "image_size": 16,
    "epochs": 4,
    "epoch_steps": 120,
    "judge_steps": 100,
    "batch_size": 32,
    "width": 24,
    "latent": 32,
    "ema": 0.97,
    "num_synthetic": 1_200,
    "log_every": 15,
}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: the two networks, the game between them, what judges the samples."""

    data: str = option(
        SYNTHETIC,
        "synthetic, digits (of scikit-learn), or a folder: CLASS/*, train/CLASS/*, or pictures without classes",
    )
    epochs: int = option(20, "epochs of --epoch-steps batches; after each the samples are judged", low=1, harmless=True)
    epoch_steps: int = option(250, "batches of an epoch; passes over the pictures follow one another", low=1)
    batch_size: int = option(64, "real and as many drawn pictures of one step, over all ranks together", low=2)
    image_size: int = option(0, "side of a picture in pixels: 8, 16, 32, 64, 128 or 256; 0: digits 16, others 32")
    architecture: Literal["dcgan", "resnet"] = option(
        "dcgan", "dcgan; or resnet: ten times the arithmetic, wants --lr 0.0002 --discriminator-lr 0.0004 --beta1 0"
    )
    conditional: bool = option(True, "draw a class that is asked for, where the pictures have classes")
    latent: int = option(128, "numbers of noise that a picture is drawn from", low=2, high=1024)
    width: int = option(64, "channels that the networks' widths are multiples of", low=8, high=512)
    loss: Literal["hinge", "nonsaturating"] = option("hinge", "the game: hinge, or non-saturating cross-entropy")
    r1: float = option(0.0, "weight of the R1 penalty on the discriminator's gradient at real pictures", low=0)
    r1_every: int = option(16, "steps between two R1 penalties, which then weigh as many times as much", low=1)
    spectral_norm: Literal["discriminator", "both", "none"] = option("discriminator", "whose layers have norm 1")
    lr: float = option(1e-3, "learning rate of the generator at the start", above=0)
    discriminator_lr: float = option(2e-3, "learning rate of the discriminator at the start", above=0)
    lr_end: float = option(0.1, "share of both rates that is left at the end; they fall straight", low=0, high=1)
    beta1: float = option(0.5, "Adam's decay of the mean gradient, of both networks", low=0, below=1)
    ema: float = option(
        0.998, "decay of the averaged generator, which draws all samples; 0: the last one", low=0, below=1
    )
    augment: str = option(
        "auto",
        "what real and drawn pictures both go through before the discriminator: color,translation,cutout, some of "
        "them, or none; auto: all under 5,000 pictures, else none",
    )
    flip: bool = option(False, "mirror half of the real pictures")
    judge: str = option(
        "auto",
        "classifier whose features samples are measured in: auto (learns the pictures' classes, or drawn shapes where "
        "there are none), shapes, or run:RUN_DIR of cifar10",
    )
    judge_steps: int = option(300, "batches that a judge learns from, where it learns", low=1)
    val_fraction: float = option(
        0.2, "share of the pictures held out where there is no test/ or val/", above=0, high=0.5
    )
    eval_samples: int = option(2_000, "samples judged after an epoch, at most as many as held-out pictures", low=20)
    test_samples: int = option(10_000, "samples judged at the end, at most as many as held-out pictures", low=20)
    inception_weights: Path | None = option(
        None, f"file {INCEPTION_FILE} for FID and KID, if not in the cache", harmless=True
    )
    num_synthetic: int = option(4_000, "pictures that `synthetic` draws", low=200, high=1_000_000)

    def check(self) -> None:
        """Raises UserError for a size, a policy or a judge that cannot be."""
        if self.image_size not in (0, *IMAGE_SIZES):
            todo = f"choose from {', '.join(map(str, IMAGE_SIZES))}"
            raise UserError("no such picture size", f"--image-size {self.image_size}", todo)
        unknown = [word for word in self.policy if word not in AUGMENTATIONS]
        if self.augment not in ("auto", "none") and (unknown or not self.policy):
            todo = f"give some of {','.join(AUGMENTATIONS)}, or none, or auto"
            raise UserError("unknown augmentation", f"--augment {self.augment}", todo)
        kind, _, name = self.judge.partition(":")
        if self.judge not in ("auto", "shapes") and not (kind == "run" and name):
            raise UserError("unknown judge", f"--judge {self.judge}", "choose auto, shapes, or run:RUN_DIR")

    @property
    def policy(self) -> list[str]:
        """The augmentations that are named."""
        return [] if self.augment in ("auto", "none") else self.augment.split(",")

    @property
    def size(self) -> int:
        """Side of a picture in pixels."""
        return self.image_size or (16 if self.data == DIGITS else 32)


def check_present(config: Config, *, resume: bool) -> None:
    """Raises UserError for a folder, file or library that the run needs and that is not there."""
    if config.data not in (SYNTHETIC, DIGITS) and not (config.data and Path(config.data).is_dir()):
        todo = "give synthetic, digits, or a folder of pictures"
        raise UserError("unknown data", f"--data {config.data}", todo)
    if config.data == DIGITS and find_spec("sklearn") is None:
        raise UserError("a library is missing", "scikit-learn, for --data digits", "pip install scikit-learn")
    kind, _, name = config.judge.partition(":")
    if kind == "run" and not resume and not Path(name).is_dir():
        raise UserError("no such run", f"--judge {config.judge}", "give the folder of a run of cifar10")
    if config.inception_weights is not None:
        if not config.inception_weights.is_file():
            where = f"--inception-weights {config.inception_weights}"
            raise UserError("no such file", where, f"give torch-fidelity's {INCEPTION_FILE}")
        for name in ("torchmetrics", "torch_fidelity"):
            if find_spec(name) is None:
                raise UserError("a library is missing", f"{name}, for FID", "pip install torchmetrics torch-fidelity")
