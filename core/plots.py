"""The pictures that several projects draw into `plots/`: training curves, a confusion matrix.

matplotlib is imported when a picture is drawn, and only with the Agg backend, which needs no screen.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DOTS_PER_INCH = 130


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure and its axes; width and height in inches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)
    return drawn, axes


def save_figure(drawn: Any, path: Path) -> None:
    """Writes a figure as PNG and forgets it."""
    from matplotlib import pyplot

    path.parent.mkdir(exist_ok=True)
    drawn.savefig(path, dpi=DOTS_PER_INCH)
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
    """A confusion matrix; counts[true, predicted], shades and numbers in per cent of the true class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(4.5, 0.62 * len(classes) + 1.6)
    drawn, grid = figure(size, size * 0.93)
    axis = grid[0, 0]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="true", xticks=range(len(classes)), yticks=range(len(classes)))
    axis.set_xticklabels(classes, rotation=45, ha="right")
    axis.set_yticklabels(classes)
    if len(classes) <= 20:
        for (row, column), share in np.ndenumerate(shares):
            color = "white" if share > 0.6 else "black"
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=color)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axis.set_title(f"{100 * accuracy:.2f} % of {counts.sum():,} right; numbers in % of a true class", fontsize=9)
    save_figure(drawn, path)
