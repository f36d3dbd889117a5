"""A network averaged with the linear model of least squares, and intervals that hold what they say: one network.

A combination of forecasts is seldom worse than the better one (Bates and Granger 1969). The linear model is DLinear's
optimum (Toner and Darlow 2024, arXiv 2403.14587) on windows whose last row is subtracted. Its share, and how far each
level lies from the point forecast, are fitted on validation windows after every pass: conformalized quantile regression
(Romano et al. 2019, arXiv 1905.03222), for each step ahead and column.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.evaluation import evaluating
from projects.forecast.config import Config
from projects.forecast.data import Data, Windows
from projects.forecast.model import build_model, solve_linear

_LOOKBACK = 336  # of the linear model, at most
_RIDGE = 0.1
_NUM_WINDOWS = 1_000  # validation windows that share and levels are fitted on, spread over all of them
_BATCH_SIZE = 256


class Blend(nn.Module):
    """Standardized windows [N, lookback, columns] → float32 [N, horizon, columns, levels], which never cross.

    In training it is the network alone. linear: float32 [rows + 1, horizon], the linear model's weights and, in the
    last row, biases. share: the linear model's. factors: of the levels' distances, float32 [horizon, columns, levels].
    """

    def __init__(self, network: nn.Module, linear: Tensor, num_columns: int, num_levels: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("linear", linear)
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("factors", torch.ones(linear.shape[1], num_columns, num_levels))
        self.linear: Tensor
        self.share: Tensor
        self.factors: Tensor

    @classmethod
    def of(cls, config: Config, num_columns: int, linear: Tensor | None = None) -> Self:
        """The network that settled settings name. linear: its weights; None for zeros, to be loaded."""
        if linear is None:
            linear = torch.zeros(_num_rows(config) + 1, config.horizon)
        return cls(build_model(config, num_columns), linear, num_columns, len(config.levels))

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, lookback, columns] → float32 [N, horizon, columns, levels]."""
        levels: Tensor = self.network(inputs)
        if self.training:
            return levels
        point, distances = _split(levels)
        point = (1 - self.share) * point + self.share * self.linear_forecast(inputs)[..., None]
        middle = distances.shape[-1] // 2
        scaled = distances * self.factors
        if not middle:
            return point
        below = [-each for each in reversed(_rising(scaled[..., :middle].flip(-1)))]
        above = _rising(scaled[..., middle + 1 :])
        return torch.cat([*(point + each for each in below), point, *(point + each for each in above)], dim=-1)

    def linear_forecast(self, inputs: Tensor) -> Tensor:
        """The linear model's forecast: [N, lookback, columns] → [N, horizon, columns]."""
        last = inputs[:, -1:]
        rows = (inputs - last)[:, 1 - len(self.linear) :].transpose(1, 2)
        return (rows.float() @ self.linear[:-1] + self.linear[-1]).transpose(1, 2) + last


def _rising(distances: Tensor) -> list[Tensor]:
    """Distances [..., n], the nearest level's first, as n of [..., 1], of which none is less than the one before."""
    rising = [distances[..., :1]]
    for number in range(1, distances.shape[-1]):
        rising.append(torch.maximum(rising[-1], distances[..., number : number + 1]))
    return rising


def _split(levels: Tensor) -> tuple[Tensor, Tensor]:
    """The point forecast [..., 1], and the distances of all levels from it, which are not negative."""
    middle = levels.shape[-1] // 2
    point = levels[..., middle : middle + 1]
    return point, (levels - point).abs()


def _num_rows(config: Config) -> int:
    """Rows that the linear model looks back on."""
    return min(config.lookback, _LOOKBACK)


def build_blend(config: Config, data: Data) -> Blend:
    """The untrained network of settled settings, with the linear model fitted to the training rows."""
    linear = solve_linear(data.train_series, _num_rows(config), config.horizon, _RIDGE, anchored=True)
    return Blend.of(config, len(data.columns), linear).to(linear.device)


@torch.no_grad()
def fit_blend(
    networks: Sequence[Blend], windows: Windows, levels: Sequence[float], accelerator: Accelerator
) -> dict[str, float]:
    """Sets the linear model's share and the levels' factors of some networks to what the first one needs on windows.

    The share has the least squared error; a factor lets the share of truths that a level asks for lie below it.
    Returns the share.
    """
    network = networks[0]
    indices = torch.linspace(0, len(windows) - 1, min(len(windows), _NUM_WINDOWS)).long()
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    with evaluating(network):
        for some in indices.split(_BATCH_SIZE):
            inputs, targets = windows.batch(some)
            with accelerator.autocast():
                own = network.network(inputs).float()
            parts.append((*_split(own), network.linear_forecast(inputs)[..., None], targets[..., None]))
    point, distances, linear, targets = (torch.cat(part) for part in zip(*parts, strict=True))
    apart = linear - point
    share = ((targets - point) * apart).sum() / apart.square().sum().clamp(min=1e-12)
    share = share.clamp(0, 1)
    errors = targets - torch.lerp(point, linear, share)
    signs = torch.tensor([-1.0 if level < 0.5 else 1.0 for level in levels], device=errors.device)
    factors = torch.ones_like(network.factors)
    for number, level in enumerate(levels):
        if level != 0.5:
            ratios = signs[number] * errors[..., 0] / distances[..., number].clamp(min=1e-6)
            rank = min(len(ratios), int((len(ratios) + 1) * max(level, 1 - level)) + 1)
            factors[..., number] = ratios.kthvalue(rank, dim=0).values.clamp(min=0)
    for each in networks:
        each.share.copy_(share)
        each.factors.copy_(factors)
    return {"linear_share": float(share)}
