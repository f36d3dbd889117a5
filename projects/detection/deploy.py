"""A detector from raw images to final boxes: what is evaluated at the end of a training, and what is exported.

The size of the image on the canvas is computed in whole numbers, as in augment.py: rounded in floating point, it would
differ by a pixel for some sizes, and boxes with it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.detection.canvas import PADDING
from projects.detection.detector import Detector
from projects.detection.nms import Detections, Rule, select

_MIN_SIDE_PIXELS = 0.5  # on the canvas


class Deployed(nn.Module):
    """Takes uint8 images [N, H, W, 3] of any size, gives Detections with boxes in pixels of these images.

    canvas: (height, width) that the detector sees, in pixels; mean, std: of the channels, of values in [0, 1].
    """

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
        """uint8 [N, H, W, 3] → Detections; those after `num` are empty."""
        height, width = image.shape[1], image.shape[2]
        fit_height, fit_width = traced_size(height, width, self.canvas)
        x = image.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=(fit_height, fit_width), mode="bilinear", antialias=True)
        x = F.pad(x, (0, self.canvas[1] - fit_width, 0, self.canvas[0] - fit_height), value=float(PADDING))
        x = x.reshape(-1, 3, *self.canvas) * self.scale + self.shift
        boxes, scores = self.detector.candidates(x)
        scores = scores * _is_visible(boxes, fit_height, fit_width)
        boxes, scores, labels, num = select(boxes, scores, self.rule)
        return Detections(_to_image(boxes, (fit_height, fit_width), (height, width)), scores, labels, num)


def traced_size(height: Any, width: Any, canvas: tuple[int, int]) -> tuple[Any, Any]:
    """augment.fitted_size, for sizes that are symbols while torch traces for export."""
    return (
        torch.sym_max(1, torch.sym_min(canvas[0], height * canvas[1] // width)),
        torch.sym_max(1, torch.sym_min(canvas[1], width * canvas[0] // height)),
    )


def _is_visible(boxes: Tensor, height: Any, width: Any) -> Tensor:
    """Which boxes [N, M, 4] or [N, C, M, 4] lie at least partly in the image and not only in the padding of the canvas:
    bool [N, 1, M] or [N, C, M]. height, width: of the image on the canvas."""
    sides = boxes[..., 2].clamp(max=width) - boxes[..., 0], boxes[..., 3].clamp(max=height) - boxes[..., 1]
    visible = torch.minimum(*sides) >= _MIN_SIDE_PIXELS
    return visible[:, None] if boxes.ndim == 3 else visible


def _to_image(boxes: Tensor, fit: tuple[Any, Any], size: tuple[Any, Any]) -> Tensor:
    """Boxes [N, K, 4] in pixels of the canvas → in pixels of the image. fit, size: (height, width) of the image on the
    canvas, and its own."""
    x = (boxes[..., 0::2] * (size[1] / fit[1])).clamp(min=0, max=size[1])
    y = (boxes[..., 1::2] * (size[0] / fit[0])).clamp(min=0, max=size[0])
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=2)
