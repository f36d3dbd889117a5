"""What the GAN's tests share: the settings of a run that takes a second, and facts of it."""

from pathlib import Path
from typing import Any

import pytest

from core.inference import OnnxModel
from core.program import ExportCommand, ExportOptions, parse_training
from projects.gan.config import ClassifierFacts, Config, Facts
from projects.gan.export import export
from projects.gan.infer import load_model
from projects.gan.synthetic import CLASSES
from projects.gan.train import train
from tests.projects.contract import CONTRACTS
from tests.smoke import Smoke

TINY = [*CONTRACTS["gan"].settings, "--epoch-steps", "5", "--classifier-steps", "5", "--precision", "fp32"]


def train_tiny(run_dir: Path, *flags: str) -> None:
    """A training that takes a second."""
    train(parse_training(Config, [*TINY, *flags, "--run-dir", str(run_dir)]))


def export_run(run_dir: Path) -> Path:
    """A run's exported file."""
    export(ExportCommand(run_dir, ExportOptions()))
    return run_dir / "model.onnx"


def facts(**changes: Any) -> Facts:
    """The facts of a tiny run on synthetic data."""
    known: dict[str, Any] = {
        "model": "dcgan",
        "classes": CLASSES,
        "conditional": True,
        "channels": 3,
        "image_size": 8,
        "latent": 6,
        "augment": (),
        "num_train": 160,
        "num_held_out": 40,
        "classifier": ClassifierFacts(title="none", sha256=""),
        "data_sha256": "",
    }
    return Facts(**{**known, **changes})


@pytest.fixture
def model(smoke: Smoke) -> OnnxModel[Facts]:
    """The smoke run's exported generator."""
    return load_model(smoke.run_dir / "model.onnx")
