"""What the fine-tuning's tests share: folders of small images, a run of another project, short trainings."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.program import parse_training
from projects.cifar10 import train as cifar10
from projects.transfer import data
from projects.transfer import train as program
from projects.transfer.config import Config
from tests.conftest import Once
from tests.forked import main_of

MakeFolder = Callable[..., Path]
CLASSES = ("amber", "blue", "green")
# A fine-tuning that takes a second or two; the backbone is left to the test.
TINY = ["--image-size", 16, "--batch-size", 8, "--epochs", 2, "--lr", 0.01, "--backbone-lr", 1, "--log-every", 2]
TINY += ["--strategy", "full", "--ema", 0.9, "--seed", 3, "--val-fraction", 0.2]
TINY += ["--precision", "fp32", "--device", "cpu"]


@pytest.fixture(scope="session")
def source_run(once: Once) -> Path:
    """A run of projects.cifar10 with its fast network, a second of training: the backbone of most tests here."""

    def fill(folder: Path) -> None:
        argv = ["--data", "synthetic", "--num-synthetic", 100, "--image-size", 16, "--batch-size", 40]
        argv += ["--model", "fast", "--lr", 0.1, "--max-steps", 2, "--val-fraction", 0.2]
        argv += ["--device", "cpu", "--precision", "fp32", "--run-dir", folder / "run"]
        torch.set_num_threads(1)
        main_of(cifar10)([str(word) for word in argv])

    return once("transfer-source", fill) / "run"


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes ROOT/SPLIT/CLASS/*.png of images that their color tells apart, of odd sizes and several modes.

    A number of images for each class, or one for all of them; the split "root" is the root itself.
    """

    def make(name: str = "images", **num_per_class: int | tuple[int, ...]) -> Path:
        random = np.random.default_rng(0)
        for split, given in num_per_class.items():
            numbers = (given,) * len(CLASSES) if isinstance(given, int) else given
            for label, (class_name, num) in enumerate(zip(CLASSES, numbers, strict=True)):
                target = tmp_path / name / ("" if split == "root" else split) / class_name
                target.mkdir(parents=True)
                for number in range(num):
                    height, width = random.integers(16, 40, 2)
                    values = random.integers(0, 120, (height, width, 3))
                    values[..., label] += 120
                    image = Image.fromarray(values.astype(np.uint8))
                    mode = ("RGB", "P", "RGBA", "CMYK")[number % 4]
                    image.convert(mode).save(target / f"{number:02}.{'jpg' if number % 4 == 3 else 'png'}")
        return tmp_path / name

    return make


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what is most of a tiny run's time, and part of the smoke run: plots, and hundreds of test images."""
    monkeypatch.setattr(program, "plot_run", lambda *_: None)
    monkeypatch.setattr(data, "NUM_SYNTHETIC_TEST", 60)


def settings(*argv: object) -> Config:
    """The settings of a command line."""
    return parse_training(Config, [str(word) for word in argv]).config


def main(argv: Sequence[object]) -> None:
    """The training program, in this process."""
    main_of(program)([str(word) for word in argv])
