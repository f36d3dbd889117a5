"""What a run of an image classifier shows of its results: confusion matrix, worst mistakes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core import plots
from core.vision.image_grid import save_image_grid

_NUM_MISTAKES_SHOWN = 32
_MIN_CELL_PIXELS = 112


def confusion_counts(labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """How many images of each class were predicted as each: int64 [num_classes, num_classes], [true, predicted]."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def worst_mistakes(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], num: int = _NUM_MISTAKES_SHOWN
) -> list[int]:
    """The rows that were predicted wrong with the highest probability, the worst first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable")[:num]
    return [int(row) for row in wrong[order]]


def caption(probabilities: NDArray[np.float32], label: int, classes: Sequence[str]) -> str:
    """An image's predicted class with its probability, and its true class; probabilities: [num_classes]."""
    return f"{classes[int(probabilities.argmax())]} {probabilities.max():.0%}\nis {classes[label]}"


def plot_results(
    folder: Path,
    classes: Sequence[str],
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    load: Callable[[Sequence[int]], NDArray[np.uint8]],
) -> list[str]:
    """Writes confusion.png, and mistakes.png where there are mistakes; returns the names of the files.

    probabilities: [N, num_classes]; labels: [N]; load: rows → uint8 [num, S, S, 3].
    """
    plots.confusion(confusion_counts(labels, probabilities.argmax(1), len(classes)), classes, folder / "confusion.png")
    rows = worst_mistakes(probabilities, labels)
    if not rows:
        return ["confusion.png"]
    captions = [caption(probabilities[row], int(labels[row]), classes) for row in rows]
    title = "Mistakes with the highest probability: predicted class, true class"
    save_image_grid(load(rows), folder / "mistakes.png", captions=captions, title=title, min_cell=_MIN_CELL_PIXELS)
    return ["confusion.png", "mistakes.png"]
