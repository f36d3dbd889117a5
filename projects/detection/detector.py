"""What every detector has: losses for training, and scored candidate boxes that nms.py chooses from."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Of an image: boxes float32 [B, 4], x1, y1, x2, y2 in pixels of the canvas; labels int64 [B]; ignored bool [B].
Target = dict[str, Tensor]


class Detector(nn.Module):
    """The base class of the small network and of torchvision's.

    Images are float32 [N, 3, H, W], normalized, with sides that are multiples of 32. statistics: mean and standard
    deviation of channels that the weights expect; None for those of the training data. channels_last: whether to train
    in that memory format.
    """

    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    channels_last = True

    def forward(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses by name, each a scalar, the mean over the batch."""
        raise NotImplementedError

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [N, M, 4] or [N, C, M, 4] in pixels of the canvas, and scores [N, C, M] from 0 to 1, both float32."""
        raise NotImplementedError


def hide_ignored(images: Tensor, targets: Sequence[Target]) -> Tensor:
    """Images [N, 3, H, W] with 0, the mean color, in ignored boxes, apart from what other boxes cover.

    For losses that know no ignored boxes, and would learn as background what is in them.
    """
    if not any(len(target["boxes"]) and bool(target["ignored"].any()) for target in targets):
        return images
    hidden = []
    for target in targets:
        ignored, others = (_covered(target["boxes"][rows], images) for rows in (target["ignored"], ~target["ignored"]))
        hidden.append(ignored & ~others)
    return images.masked_fill(torch.stack(hidden)[:, None], 0.0)


def _covered(boxes: Tensor, images: Tensor) -> Tensor:
    """Which pixels lie in any of the boxes [B, 4]: bool [H, W]."""
    y, x = (torch.arange(side, device=images.device) + 0.5 for side in images.shape[2:])
    in_rows = (y >= boxes[:, 1, None]) & (y < boxes[:, 3, None])
    in_columns = (x >= boxes[:, 0, None]) & (x < boxes[:, 2, None])
    return (in_rows[:, :, None] & in_columns[:, None]).any(0)
