"""A detector between raw pictures and final boxes: what is evaluated at the end of a training, and what is exported.

The picture is brought into the canvas with whole-number arithmetic, as augment.py does it, because sizes rounded in
another precision would differ by a pixel at some picture sizes, and boxes with them.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.detection.augment import PADDING
from projects.detection.model import Detector
from projects.detection.selection import Detections, Rule, select

MIN_SIDE_PIXELS = 0.5  # on the canvas


class Deployed(nn.Module):
    """uint8 pictures [N, H, W, 3] of any size in; boxes in their pixels, scores, labels and numbers of boxes out."""

    def __init__(
        self, detector: Detector, canvas: tuple[int, int], mean: Sequence[float], std: Sequence[float], rule: Rule
    ) -> None:
        super().__init__()
        self.detector, self.canvas, self.rule = detector, canvas, rule
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)[:, None, None]))
        self.register_buffer("shift", -torch.tensor(mean)[:, None, None] / torch.tensor(std)[:, None, None])
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, image: Tensor) -> Detections:
        """Detections; those behind `num` are empty."""
        height, width = image.shape[1], image.shape[2]
        fit_height, fit_width = fitted(height, width, self.canvas)
        x = image.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=(fit_height, fit_width), mode="bilinear", antialias=True)
        x = F.pad(x, (0, self.canvas[1] - fit_width, 0, self.canvas[0] - fit_height), value=float(PADDING))
        x = x.reshape(-1, 3, *self.canvas) * self.scale + self.shift
        boxes, scores = self.detector.candidates(x)
        scores = scores * seen(boxes, fit_height, fit_width)
        boxes, scores, labels, num = select(boxes, scores, self.rule)
        return Detections(to_picture(boxes, (fit_height, fit_width), (height, width)), scores, labels, num)


def fitted(height: Any, width: Any, canvas: tuple[int, int]) -> tuple[Any, Any]:
    """augment.fitted, for sizes that an exporter may hold as symbols."""
    return (
        torch.sym_max(1, torch.sym_min(canvas[0], height * canvas[1] // width)),
        torch.sym_max(1, torch.sym_min(canvas[1], width * canvas[0] // height)),
    )


def seen(boxes: Tensor, height: Any, width: Any) -> Tensor:
    """Which boxes [N, M, 4] or [N, C, M, 4] lie within the picture's part of the canvas, and not in its padding alone:
    bool [N, 1, M] or [N, C, M]."""
    sides = boxes[..., 2].clamp(max=width) - boxes[..., 0], boxes[..., 3].clamp(max=height) - boxes[..., 1]
    there = torch.minimum(*sides) >= MIN_SIDE_PIXELS
    return there[:, None] if boxes.ndim == 3 else there


def to_picture(boxes: Tensor, fit: tuple[Any, Any], size: tuple[Any, Any]) -> Tensor:
    """Boxes [N, K, 4] on the canvas in the picture's own pixels; fit and size are heights and widths."""
    x = (boxes[..., 0::2] * (size[1] / fit[1])).clamp(min=0, max=size[1])
    y = (boxes[..., 1::2] * (size[0] / fit[0])).clamp(min=0, max=size[0])
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=2)
