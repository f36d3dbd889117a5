"""How good forecasts are: scores by step ahead, column and part of the test. No torch.

Standardized mean squared and absolute error are the literature's numbers. sMAPE is in per cent of the mean of forecast
and truth, 0 to 200; MASE is the absolute error divided by that of seasonal-naive on the training rows (Hyndman and
Koehler 2006). The pinball loss of a level is least where that share of truths lies below (Koenker and Bassett 1978).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Original units. mean, std: float64 [columns], of the training rows. naive_error: [columns], see `naive_error`."""

    mean: _Array
    std: _Array
    naive_error: _Array


def naive_error(series: Sequence[_Array], season: int) -> _Array:
    """The mean absolute error, by column, of repeating the value of a season ago; each series float64 [rows, columns],
    the result float64 [columns] in their units."""
    error: _Array = np.abs(np.concatenate([values[season:] - values[:-season] for values in series])).mean(axis=0)
    return error


class Scores:
    """Adds up errors of forecasts, window after window.

    part_of: for each window the part of the test that it is scored in besides, 0 to num_parts - 1; int64 [windows].
    """

    def __init__(self, scale: Scale, levels: Sequence[float], part_of: NDArray[np.int64]) -> None:
        self.scale, self.levels, self.part_of = scale, tuple(levels), part_of
        self.num_parts = int(part_of.max()) + 1
        self._window_errors: list[_Array] = []
        self._num_added = 0
        self._squared: _Array = np.zeros(0)
        self._below: _Array = np.zeros(0)

    def add(self, forecast: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Takes in standardized forecasts [N, horizon, columns, levels] and targets [N, horizon, columns]."""
        levels, truth = forecast.astype(np.float64), targets.astype(np.float64)
        if not self._num_added:
            shape = levels.shape[1:3]
            self._squared, self._absolute, self._smape = (np.zeros((self.num_parts, *shape)) for _ in range(3))
            self._below = np.zeros((len(self.levels), *shape))
            self._pinball = np.zeros(len(self.levels))
            self._width = 0.0
        point = levels[..., len(self.levels) // 2]
        error = point - truth
        point, original = (values * self.scale.std + self.scale.mean for values in (point, truth))
        size = np.abs(point) + np.abs(original)
        smape = np.divide(200 * np.abs(point - original), size, out=np.zeros_like(size), where=size > 0)
        parts = self.part_of[self._num_added : self._num_added + len(truth)]
        for sums, values in ((self._squared, error**2), (self._absolute, np.abs(error)), (self._smape, smape)):
            np.add.at(sums, parts, values)
        self._window_errors.append((error**2).mean(axis=(1, 2)))
        self._below += (truth[..., None] <= levels).sum(axis=0).transpose(2, 0, 1)
        self._width += float((levels[..., -1] - levels[..., 0]).sum())
        gap = truth[..., None] - levels
        level = np.array(self.levels)
        self._pinball += np.maximum(level * gap, (level - 1) * gap).sum(axis=(0, 1, 2))
        self._num_added += len(truth)

    def result(self, columns: Sequence[str]) -> dict[str, Any]:
        """Plain data: means over everything, by column in its own units, by step ahead, and by part."""
        counts = np.bincount(self.part_of, minlength=self.num_parts)[:, None, None]
        squared, absolute, smape = (
            sums.sum(axis=0) / counts.sum() for sums in (self._squared, self._absolute, self._smape)
        )
        by_column = {
            name: {
                "mse": float(squared[:, k].mean() * self.scale.std[k] ** 2),
                "rmse": float(np.sqrt(squared[:, k].mean()) * self.scale.std[k]),
                "mae": float(absolute[:, k].mean() * self.scale.std[k]),
                "smape": float(smape[:, k].mean()),
                "mase": _relative(float(absolute[:, k].mean() * self.scale.std[k]), float(self.scale.naive_error[k])),
            }
            for k, name in enumerate(columns)
        }
        parts = [
            {"mse": float(s.mean()), "mae": float(a.mean()), "mse_by_step": s.mean(axis=1).tolist()}
            for s, a in zip(self._squared / counts, self._absolute / counts, strict=True)
        ]
        result = {
            "num_windows": int(counts.sum()),
            "mse": float(squared.mean()),
            "mae": float(absolute.mean()),
            "mse_by_step": squared.mean(axis=1).tolist(),
            "mae_by_step": absolute.mean(axis=1).tolist(),
            "backtest": parts,
            "original_units": by_column,
        }
        return {**result, **self._intervals()} if len(self.levels) > 1 else result

    def _intervals(self) -> dict[str, Any]:
        """How often truths lie below each level and inside the outermost pair, and how far that is apart, standardized;
        the pinball loss of each level."""
        shares = self._below / self._num_added
        inside = shares[-1] - shares[0]
        return {
            "levels": list(self.levels),
            "share_below": shares.mean(axis=(1, 2)).tolist(),
            "pinball": (self._pinball / (self._num_added * shares[0].size)).tolist(),
            "coverage": float(inside.mean()),
            "width": self._width / (self._num_added * shares[0].size),
            "coverage_wanted": round(self.levels[-1] - self.levels[0], 6),
            "coverage_by_step": inside.mean(axis=1).tolist(),
        }

    def first_of_parts(self) -> list[int]:
        """The first window of each part."""
        return [int(np.argmax(self.part_of == part)) for part in range(self.num_parts)]

    def worst_windows(self, num: int, apart: int) -> list[int]:
        """The windows with the largest squared error, the worst first, none within `apart` windows of another."""
        errors = np.concatenate(self._window_errors)
        worst: list[int] = []
        for window in np.argsort(-errors, kind="stable"):
            if len(worst) < num and all(abs(window - other) >= apart for other in worst):
                worst.append(int(window))
        return worst


def summary_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of `Scores.result` that tables show. Those in original units are means over columns."""
    summary = {"mse": result["mse"], "mae": result["mae"]}
    for name in ("rmse", "mae", "smape", "mase"):
        known = [column[name] for column in result["original_units"].values() if column[name] is not None]
        if known:
            summary[name + ("" if name in ("smape", "mase") else "_original_units")] = float(np.mean(known))
    return summary | {name: result[name] for name in ("coverage", "width") if name in result}


def _relative(error: float, naive: float) -> float | None:
    """An error divided by the naive one; None where that is 0."""
    return error / naive if naive > 0 else None
