"""The GAN's settings, and what a run knows beyond them. This module loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.config import RunConfig, RunFacts, option
from core.errors import UserError

TASK = "image generation"
SYNTHETIC, DIGITS = "synthetic", "digits"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # of torch-fidelity
_IMAGE_SIZES = (8, 16, 32, 64, 128, 256)
_NUM_LITE0_FEATURES = 320
_AUGMENTATIONS = ("color", "translation", "cutout")


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: the two networks, their losses, and the classifier that measures samples."""

    smoke: ClassVar[Mapping[str, Any]] = {  # under a minute on one CPU core
        "data": SYNTHETIC,
        "image_size": 16,
        "epochs": 4,
        "epoch_steps": 120,
        "classifier_steps": 100,
        "batch_size": 32,
        "width": 24,
        "latent": 32,
        "ema": 0.97,
        "num_synthetic": 1_200,
        "log_every": 15,
    }

    data: str = option(
        SYNTHETIC,
        "synthetic, digits (of scikit-learn), or a folder: CLASS/*, train/CLASS/*, or images without classes",
        harmless=True,
    )
    epochs: int = option(20, "epochs of --epoch-steps batches; samples are evaluated after each", low=1, harmless=True)
    epoch_steps: int = option(250, "batches of an epoch, whatever the number of images", low=1)
    batch_size: int = option(64, "real and as many generated images of one step, over all ranks together", low=2)
    image_size: int = option(
        0, "side of an image in pixels: 8, 16, 32, 64, 128 or 256; 0: digits 16, others 32", low=0, high=256
    )
    architecture: Literal["dcgan", "resnet"] = option(
        "dcgan", "dcgan; or resnet: ten times the arithmetic, wants --lr 0.0002 --discriminator-lr 0.0004 --beta1 0"
    )
    conditional: bool = option(True, "generate images of a given class, where the data has classes")
    latent: int = option(128, "size of the noise vector that an image is generated from", low=2, high=1024)
    width: int = option(64, "channels that the networks' widths are multiples of", low=8, high=512)
    loss: Literal["hinge", "nonsaturating"] = option("hinge", "hinge loss, or non-saturating cross-entropy")
    r1: float = option(0.0, "weight of the R1 penalty on the discriminator's gradient at real images", low=0)
    r1_every: int = option(16, "steps between two R1 penalties; each is then multiplied by this number", low=1)
    spectral_norm: Literal["discriminator", "both", "none"] = option("discriminator", "networks with spectral norm")
    lr: float = option(1e-3, "learning rate of the generator at the start", above=0)
    discriminator_lr: float = option(2e-3, "learning rate of the discriminator at the start", above=0)
    lr_end: float = option(0.1, "factor of both learning rates at the end, reached linearly", low=0, high=1)
    beta1: float = option(0.5, "Adam's decay of the mean gradient, of both networks", low=0, below=1)
    ema: float = option(
        0.998, "decay per step of the averaged generator, which makes all samples; 0 keeps none", low=0, below=1
    )
    augment: str = option(
        "auto",
        "what real and generated images both go through before the discriminator: color,translation,cutout, some of "
        "them, or none; auto: all for under 5,000 images, else none",
    )
    flip: bool = option(False, "mirror half of the real images")
    feature_classifier: str = option(
        "auto",
        "classifier whose features samples are measured in: auto (trained on the images' classes, or on synthetic "
        "shapes where there are none), shapes, or run:RUN_DIR of cifar10",
    )
    classifier_steps: int = option(300, "training steps of that classifier, where it is trained", low=1)
    val_fraction: float = option(0.2, "share of the images held out where there is no test/ or val/", above=0, high=0.5)
    eval_samples: int = option(2_000, "samples evaluated after an epoch, at most as many as held-out images", low=20)
    test_samples: int = option(10_000, "samples evaluated at the end, at most as many as held-out images", low=20)
    lite0_samples: int = option(
        0,
        "samples of a second Fréchet distance at the end, in features of EfficientNet-Lite0 (pretrained on ImageNet); "
        "0: not measured, else 320 or more: 2,000 take a minute or two on a CPU",
        low=0,
    )
    inception_weights: Path | None = option(
        None, f"file {INCEPTION_FILE} for FID and KID, if not in the cache", harmless=True
    )
    num_synthetic: int = option(4_000, "images that `synthetic` generates", low=200, high=1_000_000)

    def check(self) -> None:
        """Raises UserError for an image size, an augmentation or a classifier that does not exist."""
        if self.image_size not in (0, *_IMAGE_SIZES):
            todo = f"choose from {', '.join(map(str, _IMAGE_SIZES))}"
            raise UserError("no such image size", f"--image-size {self.image_size}", todo)
        unknown = [word for word in self.augment.split(",") if word not in _AUGMENTATIONS]
        if self.augment not in ("auto", "none") and unknown:
            todo = f"give some of {','.join(_AUGMENTATIONS)}, or none, or auto"
            raise UserError("unknown augmentation", f"--augment {self.augment}", todo)
        if 0 < self.lite0_samples < _NUM_LITE0_FEATURES:
            where = f"--lite0-samples {self.lite0_samples}"
            raise UserError("fewer samples than features", where, f"give {_NUM_LITE0_FEATURES} or more, or 0")
        if self.feature_classifier not in ("auto", "shapes") and not self.classifier_run:
            where = f"--feature-classifier {self.feature_classifier}"
            raise UserError("unknown classifier", where, "choose auto, shapes, or run:RUN_DIR")

    def check_present(self, *, resuming: bool) -> None:
        """Raises UserError for a folder, file or library that the run needs and that is not there."""
        if self.data not in (SYNTHETIC, DIGITS) and not (self.data and Path(self.data).is_dir()):
            todo = "give synthetic, digits, or a folder of images"
            raise UserError("unknown data", f"--data {self.data}", todo)
        if self.classifier_run and not resuming and not Path(self.classifier_run).is_dir():
            where = f"--feature-classifier {self.feature_classifier}"
            raise UserError("no such run", where, "give the folder of a run of cifar10")
        if self.inception_weights is not None:
            if not self.inception_weights.is_file():
                where = f"--inception-weights {self.inception_weights}"
                raise UserError("no such file", where, f"give torch-fidelity's {INCEPTION_FILE}")
            if find_spec("torch_fidelity") is None:
                todo = "python -m pip install -e '.[fid]'"
                raise UserError("a library is missing", "torch-fidelity, for FID", todo)

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return self.image_size or (16 if self.data == DIGITS else 32)

    @property
    def classifier_run(self) -> str:
        """The RUN_DIR of --feature-classifier run:RUN_DIR; empty for the other kinds."""
        kind, _, run_dir = self.feature_classifier.partition(":")
        return run_dir if kind == "run" else ""


@dataclass(frozen=True, kw_only=True)
class ClassifierFacts:
    """The classifier that measured a run's samples. title: in words. sha256: of its weights and preprocessing."""

    title: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What export and inference need of a run beyond its settings.

    model: the architecture. classes: of the data, empty where it has none. conditional: whether an image of a given
    class can be asked for. channels, image_size (side in pixels): of the images. latent: size of the noise vector.
    augment: augmentations before the discriminator. data_sha256: of the images and labels before the split.
    """

    model: Literal["dcgan", "resnet"]
    classes: tuple[str, ...]
    conditional: bool
    channels: int
    image_size: int
    latent: int
    augment: tuple[str, ...]
    num_held_out: int
    classifier: ClassifierFacts

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that an image can be asked for; none for a generator that takes no labels."""
        return self.classes if self.conditional else ()
