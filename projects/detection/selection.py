"""From scored candidates to the boxes that are given: non-maximum suppression by class, and the best ones of a picture.

The number of boxes that survive depends on the data, which an exporter cannot trace. So the suppression is one
operation of fixed shapes, scores in and scores out with those of suppressed boxes at 0; in an ONNX file it is written
as NonMaxSuppression, GatherND and ScatterND, which every runtime knows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor


class Rule(NamedTuple):
    """What counts as a detection: scores above score_threshold; of boxes of a class whose IoU is above overlap only the
    best; at most max_boxes of a picture."""

    score_threshold: float
    overlap: float
    max_boxes: int


class Detections(NamedTuple):
    """Boxes of a batch, the best first: boxes float32 [N, K, 4] as x1, y1, x2, y2; scores float32 [N, K]; labels int64
    [N, K]; num int64 [N], how many are there; behind them boxes and scores are 0 and labels -1."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    num: Tensor


def select(boxes: Tensor, scores: Tensor, rule: Rule) -> Detections:
    """The detections among candidates: boxes [N, M, 4], or [N, C, M, 4] with boxes of each class's own; scores
    [N, C, M], 0 for what is out already."""
    num, num_classes, num_boxes = scores.shape
    if boxes.ndim == 3:
        kept = suppress(boxes, scores, rule.overlap, rule.score_threshold)
    else:
        flat = scores.reshape(num * num_classes, 1, num_boxes)
        kept = suppress(boxes.flatten(0, 1), flat, rule.overlap, rule.score_threshold)
    best, index = kept.reshape(num, num_classes * num_boxes).topk(min(rule.max_boxes, num_classes * num_boxes), dim=1)
    found = best > 0
    row = index % num_boxes if boxes.ndim == 3 else index
    chosen = boxes.reshape(num, -1, 4).gather(1, row[..., None].expand(-1, -1, 4))
    labels = torch.where(found, index // num_boxes, -1)
    return Detections(chosen * found[..., None], best, labels, found.sum(1))


def keep_best(scores: Tensor, num: int) -> Tensor:
    """Scores with all but the `num` best along the last dimension set to 0."""
    if num >= scores.shape[-1]:
        return scores
    values, index = scores.topk(num, dim=-1)
    return torch.zeros_like(scores).scatter(-1, index, values)


@torch.library.custom_op("atelier_detection::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, overlap: float, score_threshold: float) -> Tensor:
    """Scores with those of suppressed boxes, and those not above the threshold, set to 0.

    boxes: float32 [N, M, 4]; scores: float32 [N, C, M].
    """
    kept = torch.zeros_like(scores)
    for picture, label in (scores > score_threshold).any(2).nonzero().tolist():
        rows = (scores[picture, label] > score_threshold).nonzero().flatten()
        rows = rows[torchvision.ops.nms(boxes[picture, rows], scores[picture, label, rows], overlap)]
        kept[picture, label, rows] = scores[picture, label, rows]
    return kept


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, score_threshold: float) -> Tensor:
    return torch.empty_like(scores)


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """How the exporter writes `suppress`."""
    from onnxscript import opset18 as op

    def suppress_onnx(boxes: Any, scores: Any, overlap: float, score_threshold: float) -> Any:
        """[picture, class, box] of what stays, and their scores put into zeros."""
        most: Any = op.Constant(value_ints=[2**62])
        limits: list[Any] = [op.Constant(value_floats=[limit]) for limit in (overlap, score_threshold)]
        stay = op.NonMaxSuppression(boxes, scores, most, *limits)
        return op.ScatterND(op.ConstantOfShape(op.Shape(scores)), stay, op.GatherND(scores, stay))

    return {torch.ops.atelier_detection.suppress.default: suppress_onnx}
