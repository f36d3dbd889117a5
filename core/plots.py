"""What several projects plot into `plots/`: training curves, a confusion matrix.

matplotlib is imported when something is plotted, and only with the Agg backend, which needs no screen.
"""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import printable

_DOTS_PER_INCH = 130
_MAX_INCHES = 20.0  # of a confusion matrix; with 200 classes one of full size would take 10 GB
_MAX_CLASSES_NAMED, _MAX_NAME_CHARACTERS = 60, 24


@contextmanager
def optional() -> Iterator[None]:
    """Within it, an error becomes a note on standard error: no finished training fails because of a plot."""
    try:
        yield
    except Exception as error:
        print(f"note: a plot is missing: {printable(f'{type(error).__name__}: {error}')}", file=sys.stderr)


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure and its axes; width and height in inches."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # a $ in a class name is a $
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)
    return drawn, axes


def save_figure(drawn: Any, path: Path) -> None:
    """Writes a figure as PNG and forgets it."""
    from matplotlib import pyplot

    path.parent.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of scripts that the font lacks; shown as boxes
        drawn.savefig(path, dpi=_DOTS_PER_INCH)
    pyplot.close(drawn)


def curves(run_path: Path, panels: Sequence[str]) -> None:
    """plots/curves.png from metrics.jsonl: a panel for each name in train/ and val/, and the learning rate."""
    records = [json.loads(line) for line in (run_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    rates = sorted({name for record in records for name in record if name == "lr" or name.startswith("lr/")})
    drawn, grid = figure(4.6 * (len(panels) + 1), 3.6, 1, len(panels) + 1)
    for axis, panel in zip(grid[0], panels, strict=False):
        for split, style in (("train", "-"), ("val", "o-")):
            points = [(r["step"], r[f"{split}/{panel}"]) for r in records if f"{split}/{panel}" in r]
            if points:
                axis.plot(*zip(*points, strict=True), style, label=split, linewidth=1.3, markersize=3)
        axis.set(title=panel, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend()
    for rate in rates:
        points = [(r["step"], r[rate]) for r in records if rate in r]
        grid[0][-1].plot(*zip(*points, strict=True), label=rate, color="tab:green" if rate == "lr" else None)
    grid[0][-1].set(title="learning rate", xlabel="step")
    grid[0][-1].grid(alpha=0.3)
    if len(rates) > 1:
        grid[0][-1].legend()
    save_figure(drawn, run_path / "plots" / "curves.png")


def confusion(counts: NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """A confusion matrix; counts[true, predicted], shades and numbers in per cent of the true class.

    Of many classes not every one is named on the axes.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(_MAX_INCHES, max(4.5, 0.62 * len(classes) + 1.6))
    shown = range(0, len(classes), -(-len(classes) // _MAX_CLASSES_NAMED))
    names = [printable(classes[number])[:_MAX_NAME_CHARACTERS] for number in shown]
    drawn, grid = figure(size, size * 0.93)
    axis = grid[0, 0]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="true", xticks=shown, yticks=shown)
    axis.set_xticklabels(names, rotation=45, ha="right")
    axis.set_yticklabels(names)
    if len(classes) <= 20:
        for (row, column), share in np.ndenumerate(shares):
            color = "white" if share > 0.6 else "black"
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=color)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axis.set_title(f"{100 * accuracy:.2f} % of {counts.sum():,} right; numbers in % of a true class", fontsize=9)
    save_figure(drawn, path)
