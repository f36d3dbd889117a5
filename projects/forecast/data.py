"""The forecaster's data: series, split by time, standardized by their training rows, served as windows in batches.

All series lie one after the other in one float32 tensor on the device, and a batch takes its windows from it by index.
The windows of validation and test look back into the rows before their part, as in the literature; no row is forecast
in two parts.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.accelerator import Accelerator
from core.data import BatchLoader, Loader, Order
from core.distributed import World
from core.errors import UserError
from projects.forecast.config import Config
from projects.forecast.datasets import load_series
from projects.forecast.frequency import Frequency
from projects.forecast.series import Series
from projects.forecast.split import split_rows, training_rows, window_starts

Batch = tuple[Tensor, Tensor]  # standardized: inputs [N, lookback, columns], targets [N, horizon, columns]

_EVALUATION_BATCH_SIZE = 256
_LARGEST_LEVEL = 1e5  # in deviations; beyond, float32 inputs of the graph would lose the movements by rounding
_COMPARED_ROWS = 24  # of two windows, to see whether one is a copy of the other


@dataclass(frozen=True)
class Windows:
    """Windows of neighboring rows of standardized series, in the order of time within each series.

    values: float32 [rows, columns], all series one after the other, on the device. starts: the row that each window
    begins with, int64 [windows], on the device; its forecast begins `lookback` rows later.
    """

    values: Tensor
    starts: Tensor
    lookback: int
    horizon: int

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, indices: Tensor) -> Batch:
        """The windows of some indices, int64 [N]."""
        span = torch.arange(self.lookback + self.horizon, device=self.values.device)
        rows = self.starts[indices.to(self.values.device)][:, None] + span
        both = self.values[rows]
        return both[:, : self.lookback], both[:, self.lookback :]


@dataclass(frozen=True)
class Data:
    """Series and their windows. rows: of train, val and test, for each series. mean, std: float64 [columns], of the
    training rows of all series.

    season: rows after which the naive baseline repeats itself.
    """

    series: tuple[Series, ...]
    rows: tuple[tuple[int, int, int], ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    season: int
    train: Windows
    val: Windows
    test: Windows

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are forecast."""
        return self.series[0].columns

    @property
    def frequency(self) -> Frequency:
        """How far apart rows are."""
        return self.series[0].frequency

    @property
    def num_rows(self) -> tuple[int, int, int]:
        """Rows of train, val and test, of all series together."""
        train, val, test = (sum(part) for part in zip(*self.rows, strict=True))
        return train, val, test

    @property
    def train_values(self) -> list[NDArray[np.float64]]:
        """The training rows of each series, in original units."""
        return training_rows(self.series, self.rows)

    @property
    def train_series(self) -> list[Tensor]:
        """The standardized training rows of each series, float32 [rows, columns], on the device."""
        begins = np.cumsum([0, *map(len, self.series)]).tolist()
        return [self.train.values[b : b + rows[0]] for b, rows in zip(begins, self.rows, strict=False)]

    @property
    def sha256(self) -> str:
        """What tells these series from others."""
        digest = hashlib.sha256()
        for series in self.series:
            digest.update(series.name.encode("utf-8", "surrogatepass"))
            digest.update(series.values.tobytes())
        return digest.hexdigest()

    def time_of(self, row: int) -> str:
        """The time of a row of Windows.values, with the series' name where there are several."""
        for series in self.series:
            if row < len(series):
                return f"{series.name} {series.time_of(row)}".strip()
            row -= len(series)
        raise IndexError(row)

    @property
    def notes(self) -> list[str]:
        """What a user should know before the training: a line each."""
        notes = [self._description]
        if left_out := self.series[0].left_out:
            notes.append(f"left out, as they hold no numbers: {', '.join(left_out)}")
        if filled := sum(series.filled for series in self.series):
            notes.append(f"filled {filled:,} missing numbers by the rule of --fill")
        if copies := self._count_copies():
            notes.append(f"{copies:,} of {len(self.test):,} test windows are copies of training windows")
        return notes

    @property
    def _description(self) -> str:
        """The table in words: rows, times, columns."""
        first = self.series[0]
        names = ", ".join(self.columns[:8]) + (", ..." if len(self.columns) > 8 else "")
        columns = f"{len(self.columns)} columns {names}" if len(self.columns) > 1 else f"column {names}"
        if len(self.series) > 1:
            rows = f"{len(self.series):,} series with {sum(map(len, self.series)):,} rows"
            times = ""
        else:
            rows = f"{len(first):,} rows"
            times = f", {first.time_column} from {first.time_of(0)} to {first.time_of(-1)}" if first.time_column else ""
        return f"{rows} {self.frequency} apart{times}; {columns}"

    def _count_copies(self) -> int:
        """Test windows whose forecast begins with the same rows as that of a training window, rows that do change."""
        known = set(_hashes(self.train))
        return sum(rows in known for rows in _hashes(self.test))


def load_data(config: Config, device: torch.device) -> Data:
    """The data that settled settings name, on the device. Raises UserError, naming place and reason."""
    series = load_series(config)
    rows = tuple(split_rows(each, config) for each in series)
    train_values = np.concatenate(training_rows(series, rows))
    mean, std = train_values.mean(axis=0), train_values.std(axis=0)
    std = np.where(np.ptp(train_values, axis=0) > 0, std, 1.0)  # a column that never changes
    for name, level, size in zip(series[0].columns, mean, std, strict=True):
        if abs(level) > _LARGEST_LEVEL * size:
            where = f"{name}: mean {level:g}, deviation {size:g}"
            raise UserError("movements too small for the level", where, "subtract a constant from the column")
    values = np.concatenate([each.values for each in series])
    standardized = torch.from_numpy(((values - mean) / std).astype(np.float32)).to(device)
    season = config.season or series[0].frequency.season(longest=config.lookback)
    if season > config.lookback or season >= min(train for train, _, _ in rows):
        where = f"--season {season}, --lookback {config.lookback}"
        raise UserError("a season is longer than the lookback", where, "give a smaller --season")
    starts = window_starts(series, rows, config)
    parts = [
        Windows(standardized, torch.from_numpy(part).to(device), config.lookback, config.horizon) for part in starts
    ]
    return Data(series, rows, mean, std, season, *parts)


def _hashes(windows: Windows) -> Iterator[int]:
    """A hash of the first rows of each window's forecast; of windows in which they are not all the same."""
    num = min(windows.horizon, _COMPARED_ROWS)
    values = windows.values.cpu().numpy()
    for start in (windows.starts + windows.lookback).tolist():
        rows = values[start : start + num]
        if (rows[1:] != rows[:-1]).any():
            yield hash(rows.tobytes())


def training_loader(data: Data, config: Config, accelerator: Accelerator) -> Loader[Batch]:
    """Shuffled windows of the training rows."""
    order = Order(len(data.train), config.batch_size, config.seed, world=accelerator.world)
    return BatchLoader(lambda indices, epoch: data.train.batch(indices), order)


def evaluation_loader(windows: Windows, world: World) -> Loader[Batch]:
    """All windows once, in their order, the last partial batch too; shared among the ranks of `world`."""
    order = Order(len(windows), _EVALUATION_BATCH_SIZE, training=False, world=world)
    return BatchLoader(lambda indices, epoch: windows.batch(indices), order)
