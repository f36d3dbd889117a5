"""What the style tests share: folders of photographs, a style image, the smoke run's exported file, tiny settings."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projects.style.synthetic import draw_landscapes
from tests.projects.contract import CONTRACTS
from tests.smoke import Smoke

TINY = CONTRACTS["style"].settings


@pytest.fixture
def model_path(smoke: Smoke) -> Path:
    """The exported file."""
    return smoke.run_dir / "model.onnx"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder, and one below it, with landscapes of odd sizes, one of them gray, and a text file."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for number, pixels in enumerate(draw_landscapes(12, seed=5, size=60)):
        image = Image.fromarray(pixels[: 60 - number, : 41 + number])
        where = folder / "more" if number % 3 == 0 else folder
        (image.convert("L") if number == 4 else image).save(where / f"{number:02}.{'png' if number % 2 else 'jpg'}")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def style_image(tmp_path: Path) -> Path:
    """A style of stripes, wider than high."""
    pixels = np.zeros((50, 70, 3), np.uint8)
    pixels[::4, :, 0], pixels[:, ::5, 2] = 230, 180
    Image.fromarray(pixels).save(tmp_path / "stripes.png")
    return tmp_path / "stripes.png"
