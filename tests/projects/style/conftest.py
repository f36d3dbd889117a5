"""What the style tests share: one smoke run with its exported file, folders of pictures, settings for tiny runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from projects.style.synthetic import draw_landscapes
from tests.conftest import Once, Program
from tests.smoke import Smoke, smoke_run

TINY = ["--crop-size", "32", "--image-size", "40", "--eval-size", "32", "--style-size", "40", "--width", "4"]
TINY += ["--blocks", "1", "--batch-size", "4", "--crops", "2", "--num-held-out", "2", "--log-every", "3"]
TINY += ["--epochs", "2", "--device", "cpu"]


@pytest.fixture
def smoke(program: Program, once: Once) -> Smoke:
    """The smoke run, with a comparison, and its export."""
    return smoke_run("style", program, once, train=["--compare", "1", "--eval-size", "32"])


@pytest.fixture
def model_path(smoke: Smoke) -> Path:
    """The exported file."""
    return smoke.run_dir / "model.onnx"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder, and one below it, with landscapes of odd sizes, one of them gray, and a text file."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    drawn = draw_landscapes(12, seed=5, size=60)
    for number, pixels in enumerate(drawn):
        picture = Image.fromarray(pixels[: 60 - number, : 41 + number])
        where = folder / "more" if number % 3 == 0 else folder
        (picture.convert("L") if number == 4 else picture).save(where / f"{number:02}.{'png' if number % 2 else 'jpg'}")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def style_picture(tmp_path: Path) -> Path:
    """A style of stripes, wider than high."""
    pixels = np.zeros((50, 70, 3), np.uint8)
    pixels[::4, :, 0], pixels[:, ::5, 2] = 230, 180
    Image.fromarray(pixels).save(tmp_path / "stripes.png")
    return tmp_path / "stripes.png"


def summary(run_dir: Path) -> dict[str, Any]:
    """summary.json without settings, and without what two equal runs may differ in."""
    numbers = json.loads((run_dir / "summary.json").read_text("utf-8"))
    return {name: value for name, value in numbers.items() if name != "config" and "seconds" not in name}
