"""What a training run draws: true boxes beside predicted ones, and precision over recall for each class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core import plots
from core.vision.image_grid import save_image_grid
from projects.detection.annotations import UNKNOWN_LABEL, AnnotatedImage
from projects.detection.draw_boxes import class_color, draw_boxes
from projects.detection.metrics import IOU_50, IOU_75, RECALLS, Predictions, Scores

_WIDTH = 480  # of an image in the figure, in pixels


def save_boxes(
    shown: Sequence[tuple[NDArray[np.uint8], AnnotatedImage, Predictions]],
    classes: Sequence[str],
    threshold: float,
    path: Path,
) -> None:
    """Writes a figure with two cells an image: its true boxes, and the predicted ones of at least that score.

    Ignored boxes are marked with a question mark.
    """
    cells = []
    for pixels, truth, predictions in shown:
        size = _WIDTH, max(1, round(_WIDTH * pixels.shape[0] / pixels.shape[1]))
        names = ["?" if label == UNKNOWN_LABEL else classes[label] for label in truth.labels]
        names = [f"{name}?" if ignored else name for name, ignored in zip(names, truth.ignored, strict=True)]
        cells.append(draw_boxes(pixels, truth.boxes, truth.labels.tolist(), names, size))
        good = predictions.above(threshold)
        captions = [f"{classes[k]} {100 * score:.0f}" for k, score in zip(good.labels, good.scores, strict=True)]
        cells.append(draw_boxes(pixels, good.boxes, good.labels.tolist(), captions, size))
    title = f"left: true; right: predicted, score of at least {threshold:.2f}"
    save_image_grid([np.asarray(cell) for cell in cells], path, columns=4, title=title)


def save_precision_recall(scores: Scores, classes: Sequence[str], path: Path) -> None:
    """Writes precision over recall for each class, at an IoU of 0.5 and of 0.75."""
    drawn, grid = plots.figure(10.5, 4.6, 1, 2)
    for axis, iou, shown in zip(grid[0], (IOU_50, IOU_75), ("0.5", "0.75"), strict=True):
        for label, name in enumerate(classes):
            precision = scores.precision[iou, :, label]
            if precision[0] > -1:
                color = tuple(value / 255 for value in class_color(label))
                axis.plot(RECALLS, precision, color=color, label=f"{name}  {scores.average(iou, label):.3f}")
        axis.set(title=f"IoU {shown}, mean {scores.average(iou):.3f}", xlabel="recall", ylabel="precision")
        axis.set(xlim=(0, 1.01), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        if len(classes) <= 20:
            axis.legend(fontsize=8, loc="lower left")
    plots.save_figure(drawn, path)
