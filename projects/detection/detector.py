"""What every detector has: losses for training, and scored candidate boxes that nms.py chooses from."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

_FEWEST_SLOTS = 8


class Targets(NamedTuple):
    """The objects of N images, in B slots each.

    boxes: float32 [N, B, 4], x1, y1, x2, y2 in pixels of the canvas. labels: int64 [N, B], -1 in an empty slot.
    ignored: bool [N, B], objects that are neither learned nor counted; their labels say nothing.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor

    @classmethod
    def of(cls, objects: Sequence[Sequence[Tensor]]) -> Self:
        """From boxes [B, 4], labels [B] and ignored [B] of each image. There are 8, 16, 32, … slots, so that batches
        have few shapes, and a GPU can replay their steps."""
        most = max(len(labels) for _, labels, _ in objects)
        slots = max(_FEWEST_SLOTS, 1 << (most - 1).bit_length())
        boxes = torch.zeros(len(objects), slots, 4)
        labels = torch.full((len(objects), slots), -1)
        ignored = torch.zeros(len(objects), slots, dtype=torch.bool)
        for number, (own_boxes, own_labels, own_ignored) in enumerate(objects):
            num = len(own_labels)
            boxes[number, :num], labels[number, :num], ignored[number, :num] = own_boxes, own_labels, own_ignored
        return cls(boxes, labels, ignored)

    @property
    def counted(self) -> Tensor:
        """bool [N, B], the slots of objects that are learned."""
        return (self.labels >= 0) & ~self.ignored


class Detector(nn.Module):
    """The base class of the small network and of torchvision's.

    Images are float32 [N, 3, H, W], normalized, with sides that are multiples of 32. statistics: mean and standard
    deviation of channels that the weights expect; None for those of the training data. channels_last: whether to train
    in that memory format.
    """

    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    channels_last = True

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Losses by name, each a scalar, the mean over the batch."""
        raise NotImplementedError

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [N, M, 4] or [N, C, M, 4] in pixels of the canvas, and scores [N, C, M] from 0 to 1, both float32."""
        raise NotImplementedError


def hide_ignored(images: Tensor, targets: Targets) -> Tensor:
    """Images [N, 3, H, W] with 0, the mean color, in ignored boxes, apart from what other boxes cover.

    For losses that know no ignored boxes, and would learn as background what is in them.
    """
    if not targets.ignored.any():
        return images
    ignored, others = (_covered(targets.boxes, chosen, images) for chosen in (targets.ignored, targets.counted))
    return images.masked_fill((ignored & ~others)[:, None], 0.0)


def _covered(boxes: Tensor, chosen: Tensor, images: Tensor) -> Tensor:
    """Which pixels of N images lie in any of the boxes [N, B, 4] that are chosen, bool [N, B]: bool [N, H, W]."""
    y, x = (torch.arange(side, device=images.device) + 0.5 for side in images.shape[2:])
    in_rows = (y >= boxes[..., 1, None]) & (y < boxes[..., 3, None])
    in_columns = (x >= boxes[..., 0, None]) & (x < boxes[..., 2, None]) & chosen[..., None]
    return torch.einsum("nbh,nbw->nhw", in_rows.float(), in_columns.float()) > 0
