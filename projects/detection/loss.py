"""The losses of the small network, and the assignment of its points to boxes.

FCOS, Tian et al. 2019 (arXiv 1904.01355), with center sampling from its later version (arXiv 2006.09214): the points
near the center of a box, of the level for boxes of its size, have to predict its class and its edges. Classes by focal
loss (Lin et al. 2017, arXiv 1708.02002), edges by generalized IoU (Rezatofighi et al. 2019, arXiv 1902.09630),
and, in place of center-ness, how well the predicted box fits (Wu, Li and Wang 2020, arXiv 1912.05992).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ext import sigmoid_focal_loss
from projects.detection.detector import Targets

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


def losses(logits: Tensor, boxes: Tensor, fits: Tensor, points: Points, targets: Targets) -> dict[str, Tensor]:
    """The three losses of a batch, each a mean over the points that are responsible for a box.

    logits [N, M, C], boxes [N, M, 4] in pixels, fits [N, M] (logits), all float32. All points are computed and those
    that count are summed, so that shapes depend on no number and a GPU can replay the step.
    """
    labels, wanted = assign(points, targets)
    responsible = labels >= 0
    num = responsible.sum().clamp(min=1)
    overlaps, generalized = ious(boxes, wanted)
    fit = F.binary_cross_entropy_with_logits(fits, overlaps.detach().clamp(0, 1), reduction="none")
    return {
        "class": sigmoid_focal_loss(logits.flatten(0, 1), labels.flatten(), _ALPHA, _GAMMA) / num,
        "box": _BOX_WEIGHT * torch.where(responsible, 1 - generalized, 0).sum() / num,
        "fit": _FIT_WEIGHT * torch.where(responsible, fit, 0).sum() / num,
    }


@torch.no_grad()
def assign(points: Points, targets: Targets) -> tuple[Tensor, Tensor]:
    """For each point a label int64 [N, M] (a class, BACKGROUND or IGNORED) and the box it is responsible for [N, M, 4].

    Where several boxes fit a point, it gets the one with the nearest center. A point inside an ignored box that fits no
    other box is IGNORED.
    """
    (x, y), stride = points.centers[:, None].unbind(2), points.strides[:, None]  # [M, 1] beside boxes [N, 1, B]
    left, top, right, bottom = targets.boxes[:, None].unbind(3)
    longer = torch.maximum(right - left, bottom - top)
    smallest = torch.where(stride == stride.min(), 0, _LARGEST_IN_STRIDES / 2 * stride)
    largest = torch.where(stride == stride.max(), torch.inf, _LARGEST_IN_STRIDES * stride)
    distance = torch.maximum((x - (left + right) / 2).abs(), (y - (top + bottom) / 2).abs())
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    is_near = (distance < _CENTER_RADIUS * stride) & (longer > smallest) & (longer <= largest)
    fits = inside & is_near & targets.counted[:, None]
    cost, index = torch.where(fits, distance + _AREA_PENALTY * longer, torch.inf).min(2)
    others = torch.where((inside & targets.ignored[:, None]).any(2), IGNORED, BACKGROUND)
    labels = torch.where(cost < torch.inf, targets.labels.gather(1, index), others)
    return labels, targets.boxes.gather(1, index[..., None].expand(-1, -1, 4))


def ious(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalized IoU of pairs of boxes [..., 4]: two of [...]."""
    common = _area((torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0))
    hull = _area(torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
    union = _area(a[..., 2:] - a[..., :2]) + _area(b[..., 2:] - b[..., :2]) - common
    iou = common / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull.clamp(min=1e-6)


def _area(sides: Tensor) -> Tensor:
    """Width times height [..., 2]: [...]. The gradient of Tensor.prod would look for zeros, and wait for a GPU."""
    return sides[..., 0] * sides[..., 1]
