"""Compares runs: python -m core.compare RUN... [--output DIR] [--markdown].

Shows the settings in which they differ, numbers of the validation at the best and the last step, speed, time and
memory, the best first. Runs that differ only in their seed are one line: mean ± sample standard deviation. With
--output, DIR gets comparison.json, comparison.md and curves.png with the curves of all runs. Loads no torch.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import plots
from core.command_line import Parser
from core.comparison import Comparison, as_markdown, as_text
from core.errors import UserError, printable, run_command
from core.files import write_atomically, write_json
from core.run_record import RunRecord, read_records

_AXES = ("auto", "steps", "samples", "seconds")
_MAX_NAMED = 12  # curves with an entry in the legend


def main() -> None:
    """The command line."""
    parser = Parser("core.compare", "Compare runs of one project.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, finished or not")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for comparison.json, .md and curves.png")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument("--metric", nargs="+", default=[], metavar="NAME", help="numbers to show, such as val/accuracy")
    parser.add_argument(
        "--over", choices=_AXES, default="auto", help="the curves' axis; auto takes samples where batch sizes differ"
    )
    text = "settings that do not tell runs apart, such as teacher where each seed has its own"
    parser.add_argument("--ignore", nargs="+", default=[], metavar="NAME", help=text)
    parser.add_argument("--allow-different-data", action="store_true", help="compare runs of different data too")
    arguments = parser.parse_args()
    records = read_records(arguments.runs)
    allowed, ignored = arguments.allow_different_data, [name.replace("-", "_") for name in arguments.ignore]
    compared = Comparison.of(records, allow_different_data=allowed, ignored=ignored)
    metrics = compared.metrics(arguments.metric)
    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_dir():
        raise UserError("not a folder", arguments.output, "give another --output")
    rows = compared.table(metrics)
    print(as_markdown(rows) if arguments.markdown else as_text(rows))
    for note in compared.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        lists = {"--metric": arguments.metric, "--ignore": arguments.ignore}
        words = ["RUN...", *(f"{name} {shlex.join(words)}" for name, words in lists.items() if words)]
        command = " ".join(["python -m core.compare", *words])
        write_json(arguments.output / "comparison.json", {"command": command, **compared.data(metrics)})
        write_atomically(arguments.output / "comparison.md", f"{as_markdown(rows)}\n".encode())
        _curves(compared, arguments.output / "curves.png", metrics, arguments.over)


def _curves(compared: Comparison, path: Path, metrics: Sequence[str], axis: str) -> None:
    """A panel for each metric and the training loss: a line for each group, the mean over its runs, and in shade their
    spread."""
    panels = list(dict.fromkeys([*metrics, "train/loss"]))
    different = len({_samples_per_step(run) for run in compared.runs}) > 1
    over = axis if axis != "auto" else "samples" if different else "steps"
    drawn, grid = plots.figure(5.2 * len(panels), 4.2, 1, len(panels))
    for panel, metric in zip(grid[0], panels, strict=True):
        for group, color in zip(compared.groups, _colors(len(compared.groups)), strict=True):
            curves = [points for run in group.runs if (points := _points(run, metric, over)).size]
            if curves:
                x, mean, deviation = _mean_curve(curves)
                panel.plot(x, mean, color=color, linewidth=1.4, label=printable(group.name))
                panel.fill_between(x, mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0)
        panel.set(title=metric, xlabel=over)
        panel.grid(alpha=0.3)
    if len(compared.groups) <= _MAX_NAMED and grid[0][0].lines:
        grid[0][0].legend(fontsize=8)
    plots.save_figure(drawn, path)


def _colors(num: int) -> list[Any]:
    """Colors that can be told apart, or, of many, shades in order."""
    from matplotlib import colormaps

    return list(colormaps["tab10"](range(num)) if num <= 10 else colormaps["viridis"](np.linspace(0, 0.95, num)))


def _samples_per_step(run: RunRecord) -> int:
    """Samples of an optimizer step."""
    return int(run.config.get("batch_size", 1)) * int(run.config.get("accumulate", 1))


def _points(run: RunRecord, metric: str, over: str) -> NDArray[np.float64]:
    """A curve's points, float64 [N, 2]."""
    seconds, factor = run.elapsed, _samples_per_step(run) if over == "samples" else 1
    values = run.values(metric).items()
    return np.array([(seconds.get(step, 0.0) if over == "seconds" else step * factor, value) for step, value in values])


def _mean_curve(curves: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
    """Mean and sample standard deviation of curves where all of them are, straight between their points: x, mean,
    deviation."""
    low, high = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
    x = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    x = x[(x >= low) & (x <= high)]
    values = np.array([np.interp(x, curve[:, 0], curve[:, 1]) for curve in curves])
    deviation = values.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(x))
    return x, values.mean(axis=0), deviation


if __name__ == "__main__":
    run_command(main)
