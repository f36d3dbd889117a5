"""What the forecaster's tests share: small tables, and settings of a training that takes a second."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from projects.forecast.synthetic import generate

MakeTable = Callable[..., Path]
COLUMNS = ("tide", "load")
TINY = ["--lookback", 24, "--horizon", 6, "--segment", 6, "--width", 8, "--batch-size", 20, "--epochs", 2, "--lr", 0.01]
TINY += ["--log-every", 3, "--device", "cpu", "--ema", 0, "--patience", 0]


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves plots empty, which saves most of a tiny run's time."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: Path(path).touch())


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    """Writes an hourly table of two waves with a little noise; `edit` may change its rows of text."""

    def make(
        num: int = 300, *, edit: Callable[[list[list[str]]], object] | None = None, name: str = "table.csv"
    ) -> Path:
        rows = [["date", *COLUMNS]]
        for number, values in enumerate(waves(num)):
            time = np.datetime64("2024-02-28T00:00", "m") + np.timedelta64(number, "h")
            rows.append([str(time).replace("T", " "), *(f"{value:.4f}" for value in values)])
        if edit is not None:
            edit(rows)
        return write(tmp_path / name, rows)

    return make


def write(path: Path, rows: Sequence[Sequence[str]], comma: str = ",") -> Path:
    """Rows of text as a file."""
    path.write_text("\n".join(comma.join(row) for row in rows) + "\n", encoding="utf-8")
    return path


def waves(num: int, seed: int = 0) -> NDArray[np.float64]:
    """Two columns of a day's wave each, of unlike size and level, with noise; [num, 2]."""
    hours = np.arange(num)[:, None]
    noise = np.random.default_rng(seed).normal(0, 0.1, (num, 2))
    values: NDArray[np.float64] = (np.sin(2 * np.pi * (hours - [0, 5]) / 24) + noise) * [3, 0.5] + [100, -2]
    return values


def write_synthetic(path: Path, num: int, seed: int = 0) -> Path:
    """Generated rows as a table that the smoke run's model can read."""
    series = generate(num, seed)
    rows = [["time", *series.columns]]
    for number, values in enumerate(series.values):
        rows.append([series.time_of(number), *(repr(float(value)) for value in values)])
    return write(path, rows)
