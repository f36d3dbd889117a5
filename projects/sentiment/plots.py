"""Plots of a run's test texts: confusion, reliability, accuracy by length; and the list of the worst mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core import plots
from core.errors import printable
from projects.sentiment.calibration import calibration_error, reliability

_NUM_MISTAKES = 100
_NUM_GROUPS = 8


class LabeledTexts(NamedTuple):
    """Texts with their labels. where: the file and line of each. labels, lengths (in tokens): int64 [N]."""

    texts: Sequence[str]
    where: Sequence[str]
    labels: NDArray[np.int64]
    lengths: NDArray[np.int64]


def plot_results(
    run_path: Path, classes: Sequence[str], texts: LabeledTexts, variants: Mapping[str, NDArray[np.float32]]
) -> None:
    """Writes plots/*.png and mistakes.txt.

    variants: probabilities float32 [N, C] by name, such as those with the temperature and without it; the last one is
    what a user gets.
    """
    probabilities = list(variants.values())[-1]
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (texts.labels, probabilities.argmax(1)), 1)
    plots.confusion(counts, classes, run_path / "plots" / "confusion.png")
    _plot_reliability(variants, texts.labels, run_path)
    _plot_lengths(texts.lengths, probabilities.argmax(1) == texts.labels, run_path)
    _list_mistakes(run_path / "mistakes.txt", classes, texts, probabilities)


def _plot_reliability(variants: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64], run_path: Path) -> None:
    """How often a prediction is right, against the probability that it was given."""
    drawn, grid = plots.figure(5.2, 5.0)
    axis = grid[0, 0]
    lowest = 1 / next(iter(variants.values())).shape[1]
    axis.plot([lowest, 1], [lowest, 1], color="gray", linewidth=1, linestyle="--", label="ideal")
    for name, probabilities in variants.items():
        _, confidence, right = zip(*reliability(probabilities, labels), strict=True)
        error = calibration_error(probabilities, labels)
        axis.plot(confidence, right, "o-", markersize=4, linewidth=1.3, label=f"{name}: error {error:.3f}")
    axis.set(title="Reliability", xlabel="probability of the predicted label", ylabel="share that is right")
    axis.set(xlim=(lowest - 0.02, 1.02), ylim=(min(0.98 * lowest, axis.get_ylim()[0]), 1.02))
    axis.grid(alpha=0.3)
    axis.legend()
    plots.save_figure(drawn, run_path / "plots" / "reliability.png")


def _plot_lengths(lengths: NDArray[np.int64], right: NDArray[np.bool_], run_path: Path) -> None:
    """Accuracy of groups of texts of like length, with a standard error."""
    order = np.argsort(lengths, kind="stable")
    groups = [group for group in np.array_split(order, min(_NUM_GROUPS, len(order))) if len(group)]
    middle = [float(np.median(lengths[group])) for group in groups]
    share = np.asarray([right[group].mean() for group in groups])
    error = np.sqrt(share * (1 - share) / np.asarray([len(group) for group in groups]))
    drawn, grid = plots.figure(5.6, 4.2)
    axis = grid[0, 0]
    axis.errorbar(middle, share, yerr=error, fmt="o-", capsize=3, linewidth=1.3, markersize=4)
    axis.axhline(float(right.mean()), color="gray", linewidth=1, linestyle="--")
    title = f"Accuracy by length, {len(lengths):,} texts in {len(groups)} equal groups"
    axis.set(title=title, xlabel="tokens of a text (median of its group)", ylabel="accuracy")
    axis.grid(alpha=0.3)
    plots.save_figure(drawn, run_path / "plots" / "lengths.png")


def _list_mistakes(path: Path, classes: Sequence[str], texts: LabeledTexts, probabilities: NDArray[np.float32]) -> None:
    """The texts that were wrong with the most confidence, the worst first, a line each."""
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != texts.labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:_NUM_MISTAKES]
    lines = [f"{len(wrong):,} of {len(texts.labels):,} are wrong; the {len(worst)} with the most confidence:", ""]
    for row in worst:
        label, true = classes[predicted[row]], classes[texts.labels[row]]
        line = f"{label} {probabilities[row].max():.1%}, is {true}: {texts.texts[row]}  [{texts.where[row]}]"
        lines.append(printable(line))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
