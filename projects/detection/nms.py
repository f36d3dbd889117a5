"""From scored candidates to detections: non-maximum suppression (NMS) for each class, then the best of an image.

The number of boxes that stay depends on the data, which an exporter cannot trace. So the suppression is one operation
of fixed shapes: scores in, the same scores out with those of suppressed boxes set to 0. In an ONNX file it is written
as NonMaxSuppression, GatherND and ScatterND, which every runtime knows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor


class Rule(NamedTuple):
    """Which candidates are detections: scores above score_threshold; of two boxes of a class whose IoU is above
    `overlap` only the better one; at most max_boxes in an image."""

    score_threshold: float
    overlap: float
    max_boxes: int


class Detections(NamedTuple):
    """The detections of a batch, the best first.

    boxes: float32 [N, K, 4], x1, y1, x2, y2 in pixels; scores: float32 [N, K]; labels: int64 [N, K]; num: int64 [N],
    the number of detections of each image. After the last one, boxes and scores are 0 and labels -1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    num: Tensor


def select(boxes: Tensor, scores: Tensor, rule: Rule) -> Detections:
    """The detections among candidates: boxes [N, M, 4], or [N, C, M, 4] with boxes of each class's own; scores
    [N, C, M], 0 for a candidate that is not to be chosen."""
    num, num_classes, num_boxes = scores.shape
    if boxes.ndim == 3:
        kept = suppress(boxes, scores, rule.overlap, rule.score_threshold)
    else:
        flat = scores.reshape(num * num_classes, 1, num_boxes)
        kept = suppress(boxes.flatten(0, 1), flat, rule.overlap, rule.score_threshold)
    best, index = kept.reshape(num, num_classes * num_boxes).topk(min(rule.max_boxes, num_classes * num_boxes), dim=1)
    chosen = best > 0
    row = index % num_boxes if boxes.ndim == 3 else index
    best_boxes = boxes.reshape(num, -1, 4).gather(1, row[..., None].expand(-1, -1, 4))
    labels = torch.where(chosen, index // num_boxes, -1)
    return Detections(best_boxes * chosen[..., None], best, labels, chosen.sum(1))


_keep_all = False


@contextmanager
def keeping_all() -> Iterator[None]:
    """While it lasts, keep_best keeps all scores, for a check that has to see the others too."""
    global _keep_all
    _keep_all = True
    try:
        yield
    finally:
        _keep_all = False


def keep_best(scores: Tensor, num: int) -> Tensor:
    """Scores with all but the `num` best along the last dimension set to 0."""
    if num >= scores.shape[-1] or _keep_all:
        return scores
    values, index = scores.topk(num, dim=-1)
    return torch.zeros_like(scores).scatter(-1, index, values)


@torch.library.custom_op("atelier_detection::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, overlap: float, score_threshold: float) -> Tensor:
    """Scores with those of suppressed boxes, and those not above the threshold, set to 0.

    boxes: float32 [N, M, 4]; scores: float32 [N, C, M].
    """
    kept = torch.zeros_like(scores)
    for image, label in (scores > score_threshold).any(2).nonzero().tolist():
        rows = (scores[image, label] > score_threshold).nonzero().flatten()
        rows = rows[torchvision.ops.nms(boxes[image, rows], scores[image, label, rows], overlap)]
        kept[image, label, rows] = scores[image, label, rows]
    return kept


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, score_threshold: float) -> Tensor:
    return torch.empty_like(scores)


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """For torch.onnx.export's custom_translation_table: how `suppress` is written as ONNX operators."""
    from onnxscript import opset18 as op

    def suppress_onnx(boxes: Any, scores: Any, overlap: float, score_threshold: float) -> Any:
        """Indices [image, class, box] of what stays, and their scores put into zeros."""
        most: Any = op.Constant(value_ints=[2**62])
        limits: list[Any] = [op.Constant(value_floats=[limit]) for limit in (overlap, score_threshold)]
        stay = op.NonMaxSuppression(boxes, scores, most, *limits)
        return op.ScatterND(op.ConstantOfShape(op.Shape(scores)), stay, op.GatherND(scores, stay))

    return {torch.ops.atelier_detection.suppress.default: suppress_onnx}
