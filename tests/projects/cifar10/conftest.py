"""What the classifier's tests share: one smoke run with its exported files, and folders of small pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Once, Program
from tests.smoke import Smoke, smoke_run

MakeFolder = Callable[..., Path]
CLASSES = ("amber", "blue", "green")


@pytest.fixture
def smoke(program: Program, once: Once) -> Smoke:
    """The smoke run and its export with --int8."""
    return smoke_run("cifar10", program, once, export=["--int8"])


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes ROOT/SPLIT/CLASS/*.png of pictures that their color tells apart, of odd sizes and several modes."""

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
