"""How good detections are: COCO's mean average precision, by faster-coco-eval, which computes what pycocotools does
(https://github.com/MiXaiLL76/faster_coco_eval).

mAP is the mean over classes and over the IoUs 0.50, 0.55, … 0.95 that a detection has to reach; AP50 and AP75
take one IoU (https://cocodataset.org/#detection-eval). Ignored boxes count neither as found nor as missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from projects.detection.annotations import UNKNOWN_LABEL, AnnotatedImage

RECALLS = np.linspace(0, 1, 101)
IOU_50, IOU_75 = 0, 5  # of the ten IoUs
_THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.01), 2)


class Predictions(NamedTuple):
    """The detections in one image: boxes float32 [K, 4] as x1, y1, x2, y2 in its pixels, scores [K], labels [K]."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def above(self, threshold: float) -> "Predictions":
        """The detections with at least that score."""
        good = self.scores >= threshold
        return Predictions(self.boxes[good], self.scores[good], self.labels[good])


@dataclass(frozen=True)
class Scores:
    """Precision at 101 recalls, and the score that each recall needs: float [10 IoUs, 101, num_classes], -1 for a class
    that no image has, 0 for a recall that is not reached."""

    precision: NDArray[np.float64]
    needed: NDArray[np.float64]

    def average(self, iou: int | None = None, label: int | None = None) -> float:
        """Average precision over IoUs (or at one) and classes (or of one); NaN without a true box."""
        part = self.precision if iou is None else self.precision[iou : iou + 1]
        part = part if label is None else part[:, :, label]
        return float(part[part > -1].mean()) if (part > -1).any() else float("nan")

    def numbers(self) -> dict[str, float]:
        """mAP, AP50 and AP75 of all classes together."""
        return {"map": self.average(), "ap50": self.average(IOU_50), "ap75": self.average(IOU_75)}

    def best_threshold(self) -> float:
        """The score from which on boxes should be shown: that with the best mean F1 over classes at an IoU of 0.5."""
        means = []
        for threshold in _THRESHOLDS:
            values = []
            for label in range(self.precision.shape[2]):
                precision, needed = self.precision[IOU_50, :, label], self.needed[IOU_50, :, label]
                if precision[0] > -1:
                    reached = np.flatnonzero((needed >= threshold) & (precision > 0))
                    p, r = (precision[reached[-1]], RECALLS[reached[-1]]) if len(reached) else (0.0, 0.0)
                    values.append(2 * p * r / max(p + r, 1e-9))
            means.append(np.mean(values) if values else 0.0)
        # Of equally good thresholds the highest: a lower one reaches no further, and lets more false boxes in.
        return float(_THRESHOLDS[np.flatnonzero(np.asarray(means) >= max(means) - 1e-9)[-1]])


def evaluate(truths: Sequence[AnnotatedImage], predictions: Sequence[Predictions], num_classes: int) -> Scores:
    """Compares the predictions with the true boxes, image by image."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(_truth_table(truths, num_classes))
    evaluation = COCOeval_faster(truth, truth.loadRes(_result_table(predictions)), iouType="bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    # [IoUs, recalls, classes, sizes of boxes, most boxes of an image]: all sizes, 100 boxes
    return Scores(
        np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1], np.asarray(evaluation.eval["scores"])[:, :, :, 0, -1]
    )


def _truth_table(truths: Sequence[AnnotatedImage], num_classes: int) -> dict[str, Any]:
    """The true boxes in COCO form; images, classes and boxes count from 1."""
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(truths, 1):
        for box, label, ignored in zip(image.boxes, image.labels, image.ignored, strict=True):
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            for each in range(num_classes) if label == UNKNOWN_LABEL else (label,):
                row = {"id": len(annotations) + 1, "area": area, "iscrowd": int(ignored)}
                annotations.append({**_row(number, box, each), **row})
    images = [{"id": n, "width": image.width, "height": image.height} for n, image in enumerate(truths, 1)]
    categories = [{"id": label + 1, "name": str(label)} for label in range(num_classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _result_table(predictions: Sequence[Predictions]) -> list[dict[str, Any]]:
    """Detections in COCO's form of results."""
    return [
        {**_row(number, box, label), "score": float(score)}
        for number, each in enumerate(predictions, 1)
        for box, score, label in zip(each.boxes, each.scores, each.labels, strict=True)
    ]


def _row(image: int, box: NDArray[np.float32], label: int | np.int64) -> dict[str, Any]:
    """What a true box and a detection have in common: image, class, [x, y, width, height]."""
    x1, y1, x2, y2 = (float(value) for value in box)
    return {"image_id": image, "category_id": int(label) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}


def none_for_nan(value: float) -> float | None:
    """The value; None for NaN, which a class without a true box has, and JSON has not."""
    return None if np.isnan(value) else value


def in_words(value: float | None) -> str:
    """A metric as a report shows it."""
    return "none (no true box)" if value is None else f"{value:.4f}"
