"""How good forecasts are: the losses of training, and scores by step ahead, column and part of the test.

Standardized mean squared and absolute error are the literature's numbers. sMAPE is in per cent of the mean of forecast
and truth, 0 to 200; MASE is the error in shares of what seasonal-naive makes on the training rows (Hyndman and Koehler
2006). The pinball loss of a level is at its least where that share of truths lies below (Koenker and Bassett 1978).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


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
    return loss + pinball(forecast[..., others], targets, [levels[k] for k in others]).mean()


def pinball(forecast: Tensor, targets: Tensor, levels: Sequence[float]) -> Tensor:
    """The pinball loss of each number: same shape as `forecast`."""
    level = forecast.new_tensor(levels)
    error = targets[..., None] - forecast
    return torch.maximum(level * error, (level - 1) * error)


@dataclass(frozen=True)
class Scale:
    """Original units. mean, std: float64 [columns], of the training rows. naive_error: [columns], see `naive_error`."""

    mean: Array
    std: Array
    naive_error: Array


def naive_error(values: Array, season: int) -> Array:
    """The mean absolute error, by column, of saying what was a season ago; values float64 [rows, columns]."""
    error: Array = np.abs(values[season:] - values[:-season]).mean(axis=0)
    return error


class Scores:
    """Adds up errors of forecasts, window after window in the order of time.

    num_parts: equal parts of the windows that are scored apart too, as a rolling backtest.
    """

    def __init__(self, scale: Scale, levels: Sequence[float], num_windows: int, num_parts: int) -> None:
        self.scale, self.levels, self.num_parts = scale, tuple(levels), min(num_parts, num_windows)
        self.part_of = np.arange(num_windows) * self.num_parts // num_windows
        self.window_errors: list[Array] = []
        self.num_added = 0
        self.squared: Array = np.zeros(0)
        self.below: Array = np.zeros(0)

    def add(self, forecast: Tensor, targets: Tensor) -> None:
        """Takes in standardized forecasts [N, horizon, columns, levels] and targets [N, horizon, columns]."""
        levels, truth = (tensor.double().cpu().numpy() for tensor in (forecast, targets))
        if not self.num_added:
            shape = levels.shape[1:3]
            self.squared, self.absolute, self.smape = (np.zeros((self.num_parts, *shape)) for _ in range(3))
            self.below = np.zeros((len(self.levels), *shape))
            self.pinball = np.zeros(len(self.levels))
        point = levels[..., len(self.levels) // 2]
        error = point - truth
        said, was = (values * self.scale.std + self.scale.mean for values in (point, truth))
        size = np.abs(said) + np.abs(was)
        smape = np.divide(200 * np.abs(said - was), size, out=np.zeros_like(size), where=size > 0)
        parts = self.part_of[self.num_added : self.num_added + len(truth)]
        for sums, values in ((self.squared, error**2), (self.absolute, np.abs(error)), (self.smape, smape)):
            np.add.at(sums, parts, values)
        self.window_errors.append((error**2).mean(axis=(1, 2)))
        self.below += (truth[..., None] <= levels).sum(axis=0).transpose(2, 0, 1)
        gap = truth[..., None] - levels
        level = np.array(self.levels)
        self.pinball += np.maximum(level * gap, (level - 1) * gap).sum(axis=(0, 1, 2))
        self.num_added += len(truth)

    def result(self, columns: Sequence[str]) -> dict[str, Any]:
        """Plain data: means over everything, by column in its own units, by step ahead, and by part."""
        counts = np.bincount(self.part_of, minlength=self.num_parts)[:, None, None]
        squared, absolute, smape = (
            sums.sum(axis=0) / counts.sum() for sums in (self.squared, self.absolute, self.smape)
        )
        by_column = {
            name: {
                "mse": float(squared[:, k].mean() * self.scale.std[k] ** 2),
                "rmse": float(np.sqrt(squared[:, k].mean()) * self.scale.std[k]),
                "mae": float(absolute[:, k].mean() * self.scale.std[k]),
                "smape": float(smape[:, k].mean()),
                "mase": relative(float(absolute[:, k].mean() * self.scale.std[k]), float(self.scale.naive_error[k])),
            }
            for k, name in enumerate(columns)
        }
        parts = [
            {"mse": float(s.mean()), "mae": float(a.mean()), "mse_by_step": s.mean(axis=1).tolist()}
            for s, a in zip(self.squared / counts, self.absolute / counts, strict=True)
        ]
        found = {
            "num_windows": int(counts.sum()),
            "mse": float(squared.mean()),
            "mae": float(absolute.mean()),
            "mse_by_step": squared.mean(axis=1).tolist(),
            "mae_by_step": absolute.mean(axis=1).tolist(),
            "backtest": parts,
            "original_units": by_column,
        }
        return {**found, **self.intervals()} if len(self.levels) > 1 else found

    def intervals(self) -> dict[str, Any]:
        """How often truths lie below each level and inside the outermost pair; the pinball loss of each level."""
        shares = self.below / self.num_added
        inside = shares[-1] - shares[0]
        return {
            "levels": list(self.levels),
            "share_below": shares.mean(axis=(1, 2)).tolist(),
            "pinball": (self.pinball / (self.num_added * shares[0].size)).tolist(),
            "coverage": float(inside.mean()),
            "coverage_wanted": round(self.levels[-1] - self.levels[0], 6),
            "coverage_by_step": inside.mean(axis=1).tolist(),
        }

    def worst_windows(self, num: int, apart: int) -> list[int]:
        """The windows with the largest squared error, the worst first, none within `apart` of another."""
        errors = np.concatenate(self.window_errors)
        found: list[int] = []
        for window in np.argsort(-errors, kind="stable"):
            if len(found) < num and all(abs(window - other) >= apart for other in found):
                found.append(int(window))
        return found


def relative(error: float, naive: float) -> float | None:
    """An error in shares of the naive one; None where that is 0."""
    return error / naive if naive > 0 else None
