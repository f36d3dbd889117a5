"""The losses of training: an error of the point forecast, and the pinball loss of the other levels.

The pinball loss of a level is least where that share of truths lies below (Koenker and Bassett 1978).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def forecast_loss(forecast: Tensor, targets: Tensor, levels: Sequence[float], name: str) -> Tensor:
    """The mean loss of forecasts [N, horizon, columns, levels] for targets [N, horizon, columns].

    name: mae, mse or huber, of the point forecast in the middle. The mean pinball loss of the other levels is added.
    """
    middle = len(levels) // 2
    point = forecast[..., middle]
    losses = {"mae": F.l1_loss, "mse": F.mse_loss, "huber": F.smooth_l1_loss}
    loss = losses[name](point, targets)
    if len(levels) == 1:
        return loss
    others = [k for k in range(len(levels)) if k != middle]
    outer = torch.cat([forecast[..., :middle], forecast[..., middle + 1 :]], dim=-1)
    return loss + pinball(outer, targets, [levels[k] for k in others]).mean()


def pinball(forecast: Tensor, targets: Tensor, levels: Sequence[float]) -> Tensor:
    """The pinball loss of each number: same shape as `forecast`."""
    errors = (targets[..., None] - forecast).unbind(-1)
    losses = [torch.maximum(level * error, (level - 1) * error) for level, error in zip(levels, errors, strict=True)]
    return torch.stack(losses, dim=-1)
