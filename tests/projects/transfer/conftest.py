"""What the fine-tuning's tests share: a smoke run with its exported files, folders of small pictures, a source run."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from projects.cifar10 import train as cifar10
from projects.transfer import data, pictures
from projects.transfer.train import parse_arguments, train
from tests.conftest import Once, Program
from tests.smoke import Smoke, smoke_run

MakeFolder = Callable[..., Path]
CLASSES = ("amber", "blue", "green")
# A fine-tuning that takes a second or two; the backbone is left to the test.
TINY = ["--image-size", 16, "--batch-size", 8, "--epochs", 2, "--lr", 0.01, "--backbone-lr", 1, "--log-every", 2]
TINY += ["--ema", 0.9, "--seed", 3, "--precision", "fp32", "--device", "cpu", "--val-fraction", 0.2]


@pytest.fixture
def smoke(program: Program, once: Once) -> Smoke:
    """The smoke run and its export with --int8."""
    return smoke_run("transfer", program, once, export=["--int8"])


@pytest.fixture(scope="session")
def source_run(once: Once) -> Path:
    """A run of projects.cifar10 with its fast network, a second of training: the backbone of most tests here."""

    def fill(folder: Path) -> None:
        argv = ["--data", "synthetic", "--num-synthetic", 100, "--image-size", 16, "--batch-size", 40]
        argv += ["--model", "fast", "--lr", 0.1, "--max-steps", 2, "--val-fraction", 0.2]
        argv += ["--device", "cpu", "--precision", "fp32", "--run-dir", folder / "run"]
        torch.set_num_threads(1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cifar10, "draw", lambda *_: None)
            cifar10.train(cifar10.parse_arguments([str(word) for word in argv]))

    return once("transfer-source", fill) / "run"


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes ROOT/SPLIT/CLASS/*.png of pictures that their color tells apart, of odd sizes and several modes.

    A number of pictures for each class, or one for all of them; the split "" is the root itself.
    """

    def make(name: str = "pictures", **num_per_class: int | tuple[int, ...]) -> Path:
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
                    picture = Image.fromarray(values.astype(np.uint8))
                    mode = ("RGB", "P", "RGBA", "CMYK")[number % 4]
                    picture.convert(mode).save(target / f"{number:02}.{'jpg' if number % 4 == 3 else 'png'}")
        return tmp_path / name

    return make


def leave_out(patch: pytest.MonkeyPatch) -> None:
    """Leaves out what is most of a tiny run's time, and part of the smoke run: plots, and hundreds of test pictures."""
    patch.setattr(pictures, "draw", lambda *_: ["none"])
    patch.setattr(data, "NUM_SYNTHETIC_TEST", 60)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes tiny runs quick."""
    leave_out(monkeypatch)


def main(argv: Sequence[object]) -> None:
    """The training program, in this process."""
    train(parse_arguments([str(word) for word in argv]))


def summary(run_dir: Path) -> dict[str, Any]:
    """summary.json without settings, and without what two equal runs may differ in."""
    numbers = json.loads((run_dir / "summary.json").read_text("utf-8"))
    return {name: value for name, value in numbers.items() if name != "config" and "seconds" not in name}
