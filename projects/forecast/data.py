"""The forecaster's data: a series, split by time, standardized by its training rows, served as windows in batches.

The series is one float32 tensor on the device, and a batch gathers its windows from it by index. ETT: Zhou et al. 2021,
"Informer" (arXiv 2012.07436), https://github.com/zhouhaoyi/ETDataset; its split of 12, 4 and 4 months of 30 days is the
literature's, where the windows of validation and test look back into the rows before their part.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.accelerator import Accelerator
from core.data import BatchLoader, Loader, Order
from core.distributed import World
from core.download import RemoteFile, fetch
from core.errors import UserError
from projects.forecast.config import ETT, Config, parse_split
from projects.forecast.series import Series, read_series

Batch = tuple[Tensor, Tensor]  # standardized: inputs [N, lookback, columns], targets [N, horizon, columns]

MIRRORS = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small",
    "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main/ETT-small",
)
FILES = {
    name: RemoteFile(name=f"{file}.csv", size=size, sha256=sha256, urls=[f"{host}/{file}.csv" for host in MIRRORS])
    for name, file, size, sha256 in (
        ("etth1", "ETTh1", 2_589_657, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"),
        ("etth2", "ETTh2", 2_417_960, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b"),
        ("ettm1", "ETTm1", 10_360_719, "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e"),
        ("ettm2", "ETTm2", 9_677_236, "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd"),
    )
}
ETT_DAYS = (360, 120, 120)
SHARES = (0.7, 0.1, 0.2)
WINDOWS_OF_AN_EVALUATION_BATCH = 256
LARGEST_LEVEL = 1e5  # in deviations; beyond, float32 inputs of the graph would round the movements away


@dataclass(frozen=True)
class Windows:
    """Windows of neighboring rows of a standardized series, one after the other.

    values: float32 [rows, columns], on the device. first: the row that window 0 begins with; its forecast begins
    `lookback` rows later.
    """

    values: Tensor
    first: int
    num: int
    lookback: int
    horizon: int

    def __len__(self) -> int:
        return self.num

    def batch(self, indices: Tensor) -> Batch:
        """The windows of some indices, int64 [N]."""
        span = torch.arange(self.lookback + self.horizon, device=self.values.device)
        rows = self.first + indices.to(self.values.device)[:, None] + span
        both = self.values[rows]
        return both[:, : self.lookback], both[:, self.lookback :]


@dataclass(frozen=True)
class Data:
    """A series and its windows. mean, std: float64 [columns], of the training rows. rows: of train, val and test.

    season: rows after which the naive baseline says the same again.
    """

    series: Series
    rows: tuple[int, int, int]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    season: int
    train: Windows
    val: Windows
    test: Windows

    @property
    def sha256(self) -> str:
        """What tells this series from another."""
        return hashlib.sha256(self.series.values.tobytes()).hexdigest()


def load_data(config: Config, device: torch.device) -> Data:
    """The data that the settings name, on the device. Raises UserError, naming place and reason."""
    series = load_series(config)
    rows = split_rows(series, config)
    train_values = series.values[: rows[0]]
    mean, std = train_values.mean(axis=0), train_values.std(axis=0)
    std = np.where(np.ptp(train_values, axis=0) > 0, std, 1.0)  # a column that never changes
    for name, level, size in zip(series.columns, mean, std, strict=True):
        if abs(level) > LARGEST_LEVEL * size:
            where = f"{name}: mean {level:g}, deviation {size:g}"
            raise UserError("movements too small for the level", where, "subtract a constant from the column")
    standardized = torch.from_numpy(((series.values - mean) / std).astype(np.float32)).to(device)
    starts = (0, rows[0] - config.lookback, rows[0] + rows[1] - config.lookback)
    spans = (rows[0] - config.lookback, rows[1], rows[2])  # rows on which a part's forecasts lie
    parts = [
        Windows(standardized, start, span - config.horizon + 1, config.lookback, config.horizon)
        for start, span in zip(starts, spans, strict=True)
    ]
    for name, num, part in zip(("train", "val", "test"), rows, parts, strict=True):
        if part.num < 1:
            wanted = config.horizon + (config.lookback if name == "train" else 0)
            where = f"{name} has {num} rows, lookback {config.lookback} and horizon {config.horizon} want {wanted}"
            raise UserError("too short a series", where, "give a smaller --lookback or --horizon, or another --split")
    season = config.season or series.frequency.season(longest=config.lookback)
    if season > config.lookback or season >= rows[0]:
        where = f"--season {season}, --lookback {config.lookback}"
        raise UserError("a season is longer than the lookback", where, "give a smaller --season")
    return Data(series, rows, mean, std, season, *parts)


def load_series(config: Config) -> Series:
    """The table that the settings name, downloaded, generated or read."""
    if config.data == "synthetic":
        from projects.forecast.synthetic import generate

        return generate(config.num_synthetic, config.seed)
    path = fetch(FILES[config.data]) if config.data in ETT else Path(config.data)
    names = [name.strip() for name in config.target.split(",") if name.strip()]
    return read_series(
        path,
        time_column=config.time_column,
        time_format=config.time_format,
        target=None if names == ["all"] else names,
        fill=config.fill,
    )


def split_rows(series: Series, config: Config) -> tuple[int, int, int]:
    """Rows of train, val and test, which follow one another from the first row on."""
    given = parse_split(config.split)
    if config.split == "ett" or (config.split == "auto" and config.data in ETT):
        counts = [series.frequency.rows_of_days(days) for days in ETT_DAYS]
        train, val, test = (count or 0 for count in counts)
        if not train or train + val + test > len(series):
            where = f"{len(series)} rows, {series.frequency} apart"
            raise UserError("no 20 months of 30 days", where, "give another --split")
        return train, val, test
    parts = given or SHARES
    if sum(parts) > 1.5:
        train, val, test = (round(part) for part in parts)
        if train + val + test > len(series):
            where = f"--split {config.split}, {len(series)} rows"
            raise UserError("more rows than there are", where, "give smaller numbers")
        return train, val, test
    train, test = int(parts[0] * len(series)), int(parts[2] * len(series))
    return train, len(series) - train - test, test


def training_loader(data: Data, config: Config, accelerator: Accelerator) -> Loader[Batch]:
    """Shuffled windows of the training rows."""
    order = Order(len(data.train), config.batch_size, config.seed, world=accelerator.world)
    return BatchLoader(lambda indices, epoch: data.train.batch(indices), order)


def evaluation_loader(windows: Windows, world: World) -> Loader[Batch]:
    """All windows once, in their order, the last partial batch too; shared among the ranks of `world`."""
    order = Order(len(windows), WINDOWS_OF_AN_EVALUATION_BATCH, training=False, world=world)
    return BatchLoader(lambda indices, epoch: windows.batch(indices), order)
