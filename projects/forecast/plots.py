"""The plots of a run: forecasts beside the truth, errors by step ahead and over time, calibration. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import plots
from projects.forecast.metrics import Scores

_Array = NDArray[np.float64]
_NUM_PLOTTED = 3  # windows, and columns of each
_COLORS = ("tab:blue", "tab:orange", "tab:gray", "tab:green")


@dataclass(frozen=True)
class Panel:
    """One column of one window, in original units. history: [rows]. truth: [horizon], None where it is not known.
    forecast: [horizon, levels]."""

    caption: str
    history: _Array
    forecast: _Array
    truth: _Array | None = None


def plot_evaluation(
    folder: Path,
    scores: Scores,
    results: Mapping[str, Mapping[str, Any]],
    begins: Sequence[str],
    panel: Callable[[int, int], Panel],
    num_columns: int,
    horizon: int,
) -> None:
    """Writes some forecasts, the worst ones, errors by step and over time, and calibration as PNG files.

    results: by name, the forecaster's own first. begins: each part's first time. panel: from a window and a column.
    """
    num, levels = len(scores.part_of), scores.levels
    some = sorted({num * k // (_NUM_PLOTTED + 1) for k in range(1, _NUM_PLOTTED + 1)})
    worst = scores.worst_windows(_NUM_PLOTTED, apart=horizon)
    titles = {"forecasts": "Test forecasts", "worst": "Test windows of the largest errors"}
    for name, windows in {"forecasts": some, "worst": worst}.items():
        columns = range(max(0, num_columns - _NUM_PLOTTED), num_columns)
        panels = [panel(window, column) for window in windows for column in columns]
        plot_forecasts(panels, levels, folder / f"{name}.png", title=titles[name])
    plot_errors(results, begins, folder / "errors.png")
    if len(levels) > 1:
        plot_calibration(next(iter(results.values())), folder / "calibration.png")


def plot_attention(weights: NDArray[np.float32], path: Path) -> None:
    """A map of which rows of the past each step of the forecast looks at. weights: [horizon, lookback]."""
    horizon, lookback = weights.shape
    figure, grid = plots.figure(7.5, 3.6)
    axis = grid[0, 0]
    drawn = axis.imshow(weights, aspect="auto", cmap="viridis", extent=(-lookback, 0, horizon + 0.5, 0.5), vmin=0)
    axis.set(title="Attention, mean over test windows", xlabel="rows from the forecast's begin", ylabel="step ahead")
    figure.colorbar(drawn, ax=axis, label="share (the shares of a step sum to 1)")
    plots.save_figure(figure, path)


def plot_forecasts(panels: Sequence[Panel], levels: Sequence[float], path: Path, *, title: str) -> None:
    """A grid of panels with the intervals between levels."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plots.figure(5.2 * columns, 2.5 * rows + 0.5, rows, columns)
    for axis in grid.flat:
        axis.axis("off")
    for axis, panel in zip(grid.flat, panels, strict=False):
        axis.axis("on")
        _plot_panel(axis, panel, levels)
    grid.flat[0].legend(fontsize=7, loc="upper left")
    figure.suptitle(f"{title}; rows from the last known one", fontsize=10)
    plots.save_figure(figure, path)


def plot_errors(results: Mapping[str, Mapping[str, Any]], begins: Sequence[str], path: Path) -> None:
    """Squared error by step ahead and by part of the test, of each named result; `begins`: each part's first time."""
    figure, grid = plots.figure(11, 3.8, 1, 2)
    by_step, by_part = grid[0]
    width = 0.8 / len(results)
    for k, (name, result) in enumerate(results.items()):
        steps = result["mse_by_step"]
        label = f"{name} {result['mse']:.4f}"
        by_step.plot(range(1, len(steps) + 1), steps, color=_COLORS[k], linewidth=1.3, label=label)
        at = np.arange(len(begins)) + (k - (len(results) - 1) / 2) * width
        by_part.bar(at, [part["mse"] for part in result["backtest"]], width, color=_COLORS[k], label=name)
    by_step.set(title="by step ahead", xlabel="rows ahead", ylabel="MSE, standardized", ylim=(0, None))
    by_part.set(title="backtest: parts of the test, by where forecasts begin", xticks=range(len(begins)))
    labels = [text.replace(" ", "\n").replace("T", "\n") for text in begins]
    by_part.set_xticklabels(labels, fontsize=7)
    for axis in grid[0]:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    plots.save_figure(figure, path)


def plot_calibration(result: Mapping[str, Any], path: Path) -> None:
    """Levels against how often the truth lay below, and the outermost interval's coverage by step ahead."""
    figure, grid = plots.figure(9.5, 3.8, 1, 2)
    left, right = grid[0]
    left.plot([0, 1], [0, 1], color="tab:gray", linewidth=0.8, linestyle="--")
    left.plot(result["levels"], result["share_below"], "o-", color="tab:blue")
    left.set(title="share of truths below a level", xlabel="level", ylabel="share", xlim=(0, 1), ylim=(0, 1))
    steps = result["coverage_by_step"]
    right.plot(range(1, len(steps) + 1), steps, color="tab:blue", linewidth=1.3)
    wanted = result["coverage_wanted"]
    right.axhline(wanted, color="tab:gray", linewidth=0.8, linestyle="--")
    title = f"inside the {100 * wanted:.0f} % interval: {100 * result['coverage']:.1f} %"
    right.set(title=title, xlabel="rows ahead", ylabel="share", ylim=(0, 1))
    for axis in grid[0]:
        axis.grid(alpha=0.3)
    plots.save_figure(figure, path)


def _plot_panel(axis: Any, panel: Panel, levels: Sequence[float]) -> None:
    """History, truth, forecast and intervals on one axis."""
    middle = len(levels) // 2
    ahead = np.arange(1, len(panel.forecast) + 1)
    axis.plot(np.arange(1 - len(panel.history), 1), panel.history, color="black", linewidth=0.9, label="history")
    if panel.truth is not None:
        axis.plot(ahead, panel.truth, color="tab:gray", linewidth=0.9, label="truth")
    axis.plot(ahead, panel.forecast[:, middle], color="tab:blue", linewidth=1.3, label="forecast")
    for k in range(middle):
        label = f"{100 * (levels[-1 - k] - levels[k]):.0f} % interval"
        low, high = panel.forecast[:, k], panel.forecast[:, -1 - k]
        axis.fill_between(ahead, low, high, color="tab:blue", alpha=0.2, lw=0, label=label)
    axis.axvline(0, color="tab:red", linewidth=0.6)
    axis.set_title(panel.caption, fontsize=8)
    axis.grid(alpha=0.3)
