"""The losses of the small network, and the assignment of its points to boxes.

FCOS, Tian et al. 2019 (arXiv 1904.01355), with center sampling from its later version (arXiv 2006.09214): the points
near the center of a box, of the level for boxes of its size, have to predict its class and its edges. Classes by focal
loss (Lin et al. 2017, arXiv 1708.02002), edges by generalized IoU (Rezatofighi et al. 2019, arXiv 1902.09630),
and, in place of center-ness, how well the predicted box fits (Wu, Li and Wang 2020, arXiv 1912.05992).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ext import sigmoid_focal_loss

BACKGROUND, IGNORED = -1, -2  # labels of points, as sigmoid_focal_loss takes them
_CENTER_RADIUS = 1.5  # in strides
_LARGEST_IN_STRIDES = 10.0  # the longer side of the largest boxes of a level; the coarsest takes larger ones too
_AREA_PENALTY = 0.1  # times a box's longer side, so that a small box keeps its points inside a large one
_ALPHA, _GAMMA = 0.25, 2.0
_BOX_WEIGHT, _FIT_WEIGHT = 2.0, 0.5


class Points(NamedTuple):
    """The points of all levels: centers float32 [M, 2] as x, y in pixels, strides float32 [M] in pixels."""

    centers: Tensor
    strides: Tensor


def losses(
    logits: Tensor, boxes: Tensor, fits: Tensor, points: Points, targets: Sequence[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The three losses of a batch, each a mean over the points that are responsible for a box.

    logits [N, M, C], boxes [N, M, 4] in pixels, fits [N, M] (logits), all float32.
    """
    assigned = [assign(points, target) for target in targets]
    labels = torch.stack([each[0] for each in assigned])
    wanted = torch.stack([each[1] for each in assigned])
    responsible = labels >= 0
    num = responsible.sum().clamp(min=1)
    overlaps, generalized = ious(boxes[responsible], wanted[responsible])
    fit = F.binary_cross_entropy_with_logits(fits[responsible], overlaps.detach().clamp(0, 1), reduction="sum")
    return {
        "class": sigmoid_focal_loss(logits.flatten(0, 1), labels.flatten(), _ALPHA, _GAMMA) / num,
        "box": _BOX_WEIGHT * (1 - generalized).sum() / num,
        "fit": _FIT_WEIGHT * fit / num,
    }


@torch.no_grad()
def assign(points: Points, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """For each point a label int64 [M] (a class, BACKGROUND or IGNORED) and the box it is responsible for [M, 4].

    target: see detector.py. Where several boxes fit a point, it gets the one with the nearest center. A point inside an
    ignored box that fits no other box is IGNORED.
    """
    x, y = points.centers.unbind(1)
    counted = ~target["ignored"]
    boxes, classes = target["boxes"][counted], target["labels"][counted]
    labels = torch.full((len(x),), BACKGROUND, device=x.device)
    if len(target["boxes"]) > len(boxes):
        edges = _edge_distances(x, y, target["boxes"][~counted])
        labels[(edges.amin(2) > 0).any(1)] = IGNORED
    if not len(boxes):
        return labels, torch.zeros(len(x), 4, device=x.device)
    stride, longer = points.strides[:, None], (boxes[:, 2:] - boxes[:, :2]).amax(1)
    smallest = torch.where(stride == points.strides.min(), 0, _LARGEST_IN_STRIDES / 2 * stride)
    largest = torch.where(stride == points.strides.max(), torch.inf, _LARGEST_IN_STRIDES * stride)
    distance = (points.centers[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(2)
    inside = _edge_distances(x, y, boxes).amin(2) > 0
    fits = inside & (distance < _CENTER_RADIUS * stride) & (longer > smallest) & (longer <= largest)
    cost, index = torch.where(fits, distance + _AREA_PENALTY * longer, torch.inf).min(1)
    return torch.where(cost < torch.inf, classes[index], labels), boxes[index]


def _edge_distances(x: Tensor, y: Tensor, boxes: Tensor) -> Tensor:
    """Distances of points to the left, upper, right and lower edge of boxes, negative outside: [M, B, 4] in pixels."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x[:, None] - x1, y[:, None] - y1, x2 - x[:, None], y2 - y[:, None]], dim=2)


def ious(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalized IoU of pairs of boxes [R, 4]: two of [R]."""
    size_a, size_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = size_a.prod(1) + size_b.prod(1) - common
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    iou = common / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)
