"""What the GAN's tests share: one smoke run with its exported file, and folders of small pictures."""

import io
import json
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from projects.gan.export import export
from tests.conftest import Program

MakeFolder = Callable[..., Path]
CLASSES = ("amber", "blue", "green")


class Smoke(NamedTuple):
    """A run made with --smoke and exported, and what the two programs printed."""

    run_dir: Path
    trained: "subprocess.CompletedProcess[str]"
    exported: str


@pytest.fixture(scope="session")
def _smoked() -> list[Smoke]:
    return []


@pytest.fixture
def smoke(program: Program, _smoked: list[Smoke], tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """The two programs, run once for all tests; each test of them looks at another promise."""
    if not _smoked:
        run_dir = tmp_path_factory.mktemp("smoke") / "run"
        trained = program("projects.gan.train", "--smoke", "--run-dir", run_dir)
        assert trained.returncode == 0, trained.stderr
        said = io.StringIO()
        with redirect_stdout(said):  # in this process, which exports again: loading the exporter is the longest part
            export(run_dir, "best", None)
        _smoked.append(Smoke(run_dir, trained, said.getvalue()))
    return _smoked[0]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes ROOT/SPLIT/CLASS/*.png of pictures that their color tells apart; flat ones without classes."""

    def make(*, flat: bool = False, **num_per_class: int) -> Path:
        random = np.random.default_rng(0)
        for split, num in num_per_class.items():
            for label, name in enumerate(CLASSES):
                target = tmp_path / "pictures" / split / ("" if flat else name)
                target.mkdir(parents=True, exist_ok=True)
                for number in range(num):
                    values = random.integers(0, 120, (*random.integers(8, 20, 2), 3))
                    values[..., label] += 120
                    Image.fromarray(values.astype(np.uint8)).save(target / f"{name}-{number:02}.png")
        return tmp_path / "pictures"

    return make


def summary(run_dir: Path) -> dict[str, Any]:
    """summary.json without settings, and without what two equal runs may differ in."""
    numbers = json.loads((run_dir / "summary.json").read_text("utf-8"))
    return {name: value for name, value in numbers.items() if name != "config" and "seconds" not in name}
