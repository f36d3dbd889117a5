"""How good detections are: COCO's mean average precision, by faster-coco-eval, which computes what pycocotools does
(https://github.com/MiXaiLL76/faster_coco_eval).

mAP is the mean over classes and over the IoUs 0.50, 0.55, … 0.95 from which on a box counts as found; AP50 and AP75
take one IoU (https://cocodataset.org/#detection-eval). Boxes that are not to be counted are neither found nor missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from projects.detection.annotations import Picture

RECALLS = np.linspace(0, 1, 101)
IOU_50, IOU_75 = 0, 5  # of the ten IoUs
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.01), 2)


class Found(NamedTuple):
    """The detections in one picture, in its own pixels: boxes [K, 4], scores [K], labels [K]."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def above(self, threshold: float) -> "Found":
        """The detections with at least that score."""
        good = self.scores >= threshold
        return Found(self.boxes[good], self.scores[good], self.labels[good])


@dataclass(frozen=True)
class Scores:
    """Precision at 101 recalls, and the score that each recall needs: float [10 IoUs, 101, num_classes], -1 for a class
    that no picture has, 0 for a recall that is not reached."""

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
        """The score from which on boxes should be shown: the best mean F1 over classes at an IoU of 0.5."""
        means = []
        for threshold in THRESHOLDS:
            values = []
            for label in range(self.precision.shape[2]):
                precision, needed = self.precision[IOU_50, :, label], self.needed[IOU_50, :, label]
                if precision[0] > -1:
                    reached = np.flatnonzero((needed >= threshold) & (precision > 0))
                    p, r = (precision[reached[-1]], RECALLS[reached[-1]]) if len(reached) else (0.0, 0.0)
                    values.append(2 * p * r / max(p + r, 1e-9))
            means.append(np.mean(values) if values else 0.0)
        # Of equal ones the highest: a lower one reaches no further, and lets more false boxes in.
        return float(THRESHOLDS[np.flatnonzero(np.asarray(means) >= max(means) - 1e-9)[-1]])


def evaluate(truths: Sequence[Picture], found: Sequence[Found], num_classes: int) -> Scores:
    """Compares what was found with what is there, picture by picture."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(truth_table(truths, num_classes))
    evaluation = COCOeval_faster(truth, truth.loadRes(result_table(found)), iouType="bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    # [IoUs, recalls, classes, sizes of boxes, most boxes of a picture]: all sizes, 100 boxes
    return Scores(
        np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1], np.asarray(evaluation.eval["scores"])[:, :, :, 0, -1]
    )


def truth_table(truths: Sequence[Picture], num_classes: int) -> dict[str, Any]:
    """The true boxes in COCO form; pictures, classes and boxes count from 1."""
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(truths, 1):
        for box, label, uncounted in zip(picture.boxes, picture.labels, picture.uncounted, strict=True):
            annotations.append(
                {
                    **entry(number, box, label),
                    "id": len(annotations) + 1,
                    "area": float((box[2] - box[0]) * (box[3] - box[1])),
                    "iscrowd": int(uncounted),
                }
            )
    pictures = [{"id": n, "width": p.width, "height": p.height} for n, p in enumerate(truths, 1)]
    categories = [{"id": label + 1, "name": str(label)} for label in range(num_classes)]
    return {"images": pictures, "annotations": annotations, "categories": categories}


def result_table(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Detections in COCO's form of results."""
    return [
        {**entry(number, box, label), "score": float(score)}
        for number, each in enumerate(found, 1)
        for box, score, label in zip(each.boxes, each.scores, each.labels, strict=True)
    ]


def entry(picture: int, box: NDArray[np.float32], label: np.int64) -> dict[str, Any]:
    """What a true box and a detection have in common: picture, class, [x, y, width, height]."""
    x1, y1, x2, y2 = (float(value) for value in box)
    return {"image_id": picture, "category_id": int(label) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
