"""What the classifier's tests share: one smoke run with its exported files, and folders of small pictures."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Program

MakeFolder = Callable[..., Path]
CLASSES = ("amber", "blue", "green")


class Smoke(NamedTuple):
    """A run made with --smoke and exported with --int8, and what the two programs printed."""

    run_dir: Path
    trained: "subprocess.CompletedProcess[str]"
    exported: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="session")
def _smoked() -> list[Smoke]:
    return []


@pytest.fixture
def smoke(program: Program, _smoked: list[Smoke], tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """The two programs, run once for all tests; each test of them looks at another promise."""
    if not _smoked:
        run_dir = tmp_path_factory.mktemp("smoke") / "run"
        trained = program("projects.cifar10.train", "--smoke", "--run-dir", run_dir)
        assert trained.returncode == 0, trained.stderr
        exported = program("projects.cifar10.export", run_dir, "--int8")
        _smoked.append(Smoke(run_dir, trained, exported))
    return _smoked[0]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes ROOT/SPLIT/CLASS/*.png of pictures that their colour tells apart, of odd sizes and several modes."""

    def make(**num_per_class: int) -> Path:
        random = np.random.default_rng(0)
        for split, num in num_per_class.items():
            for label, name in enumerate(CLASSES):
                target = tmp_path / "pictures" / split / name
                target.mkdir(parents=True)
                for number in range(num):
                    height, width = random.integers(16, 40, 2)
                    values = random.integers(0, 120, (height, width, 3))
                    values[..., label] += 120
                    picture = Image.fromarray(values.astype(np.uint8))
                    mode = ("RGB", "P", "RGBA", "RGB")[number % 4]
                    picture.convert(mode).save(target / f"{number:02}.{'jpg' if number % 4 == 3 else 'png'}")
        return tmp_path / "pictures"

    return make


def summary(run_dir: Path) -> dict[str, Any]:
    """summary.json without settings, and without what two equal runs may differ in."""
    numbers = json.loads((run_dir / "summary.json").read_text("utf-8"))
    return {name: value for name, value in numbers.items() if name != "config" and "seconds" not in name}
