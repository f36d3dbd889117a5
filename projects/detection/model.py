"""A small detector that trains from scratch on a CPU, and its pyramid and head for other backbones.

The small one follows FCOS (Tian et al. 2019, arXiv 1904.01355): residual blocks (He et al. 2016, arXiv 1512.03385),
a feature pyramid (Lin et al. 2017, arXiv 1612.03144) of strides 8, 16 and 32, and one head shared by the three levels.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.detection.detector import Detector, Targets
from projects.detection.loss import Points, losses
from projects.detection.nms import keep_best

STRIDES = (8, 16, 32)
_FIRST_SCORE = 0.01  # of every class at first, so that the many background points do not outweigh the others
_NUM_CANDIDATES = 1000  # of a class: the best ones


class PyramidDetector(Detector):
    """A feature pyramid on three maps of strides 8, 16 and 32, and a head of two branches: one for classes, one for
    edges and fit.

    The fit is a prediction of how well the predicted box will overlap with the true one (its IoU). A subclass calls
    `add_head` and has `maps`.
    """

    def maps(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps [N, channels, H / stride, W / stride], of each stride."""
        raise NotImplementedError

    def add_head(self, num_classes: int, channels: Sequence[int], features: int = 96, depth: int = 2) -> None:
        """Adds pyramid and head for maps of these numbers of channels."""
        self.num_classes = num_classes
        self.lateral = nn.ModuleList(nn.Conv2d(width, features, 1) for width in channels)
        self.smooth = nn.ModuleList(_convolution(features, features) for _ in STRIDES)
        self.class_branch = nn.Sequential(*(_convolution(features, features) for _ in range(depth)))
        self.box_branch = nn.Sequential(*(_convolution(features, features) for _ in range(depth)))
        self.class_output = nn.Conv2d(features, num_classes, 3, padding=1)
        self.box_output = nn.Conv2d(features, 5, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))

    def initialize(self, modules: Iterable[nn.Module]) -> None:
        """Gives these modules, which include the head, the random weights that a training begins with."""
        for module in modules:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Block):
                nn.init.zeros_(module.second.get_parameter("1.weight"))  # a block begins as its shortcut
        for output in (self.class_output, self.box_output):
            nn.init.normal_(output.weight, std=0.01)
        assert self.class_output.bias is not None
        assert self.box_output.bias is not None
        nn.init.constant_(self.class_output.bias, math.log(_FIRST_SCORE / (1 - _FIRST_SCORE)))
        nn.init.constant_(self.box_output.bias[:4], 1.0)  # a first box of about 5 by 5 strides

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The losses of loss.py by name."""
        logits, boxes, fits, points = self.predict(images)
        return losses(logits, boxes, fits, points, targets)

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [N, M, 4] and scores [N, C, M]: the geometric mean of the probabilities of class and fit."""
        logits, boxes, fits, _ = self.predict(images)
        scores = (logits.sigmoid() * fits.sigmoid()[..., None]).sqrt().transpose(1, 2)
        limits = boxes.new_tensor([images.shape[3], images.shape[2]] * 2)
        return torch.minimum(boxes.clamp(min=0), limits), keep_best(scores, _NUM_CANDIDATES)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Points]:
        """logits [N, M, C], boxes [N, M, 4] in pixels and fits [N, M] (logits) of all points, float32; the points."""
        levels = self.pyramid(images)
        logits, boxes, fits, centers, strides = [], [], [], [], []
        for number, (x, stride) in enumerate(zip(levels, STRIDES, strict=True)):
            height, width = images.shape[2] // stride, images.shape[3] // stride
            class_map = self.class_output(self.class_branch(x)).float()
            box_map = self.box_output(self.box_branch(x)).float().flatten(2).transpose(1, 2)
            logits.append(class_map.flatten(2).transpose(1, 2))
            fits.append(box_map[..., 4])
            center = grid(height, width, stride, images.device)
            edges = (box_map[..., :4] * self.scales[number]).clamp(max=6.0).exp() * stride
            boxes.append(torch.cat([center - edges[..., :2], center + edges[..., 2:]], dim=2))
            centers.append(center)
            strides.append(torch.full((height * width,), float(stride), device=images.device))
        return (
            torch.cat(logits, 1),
            torch.cat(boxes, 1),
            torch.cat(fits, 1),
            Points(torch.cat(centers), torch.cat(strides)),
        )

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Features [N, features, H / stride, W / stride] of each stride."""
        levels = [lateral(map_) for lateral, map_ in zip(self.lateral, self.maps(images), strict=True)]
        for number in (1, 0):  # from coarse to fine
            levels[number] = levels[number] + F.interpolate(levels[number + 1], scale_factor=2.0, mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]


class Small(PyramidDetector):
    """The small residual network under pyramid and head; 2.6 million weights."""

    def __init__(
        self, num_classes: int, widths: Sequence[int] = (24, 48, 96, 160, 224), features: int = 96, depth: int = 2
    ) -> None:
        super().__init__()
        self.stem = _convolution(3, widths[0], stride=2)
        self.stages = nn.ModuleList()
        for number, (channels_in, channels_out) in enumerate(pairwise(widths)):
            blocks = [Block(channels_in, channels_out, stride=2)]
            if number in (1, 2):  # strides 8 and 16 matter most for small images
                blocks.append(Block(channels_out, channels_out))
            self.stages.append(nn.Sequential(*blocks))
        self.add_head(num_classes, widths[-3:], features, depth)
        self.initialize(self.modules())

    def maps(self, images: Tensor) -> list[Tensor]:
        """The outputs of the last three stages."""
        x, outputs = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs[-3:]


class Block(nn.Module):
    """Two 3×3 convolutions round a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out, stride=stride)
        self.second = _convolution(channels_out, channels_out, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels_out:
            self.shortcut = _convolution(channels_in, channels_out, kernel=1, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, H, W] → [N, channels_out, H/stride, W/stride]."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def _convolution(
    channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, unless a sum comes first, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def grid(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """The centers of a level's cells in pixels, as x, y: float32 [height · width, 2]."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing="ij"
    )
    return torch.stack([x, y], dim=2).reshape(-1, 2) * stride
