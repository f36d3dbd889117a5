"""The forecaster's settings. This module loads no torch, so a wrong flag is answered at once."""

import argparse
import csv
import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.command_line import flag, real_number
from core.config import RunConfig, RunFacts, option
from core.errors import UserError
from projects.forecast.frequency import Frequency
from projects.forecast.timestamps import EPOCH_UNITS, check_time_format

TASK = "time series forecasting"
ETT = ("etth1", "etth2", "ettm1", "ettm2")
NO_TIME_COLUMN = "-"
DEFAULT_SPLIT = "0.7/0.1/0.2"
# What a model takes where a setting is left at 0 or auto.
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "segrnn": {"lookback": 720, "lr": 4e-4, "loss": "mae", "normalize": "last"},
    "lstm": {"lookback": 96, "lr": 1e-3, "loss": "mae", "normalize": "last"},
    "dlinear": {"lookback": 336, "lr": 5e-3, "loss": "mse", "normalize": "none"},
}


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Fields beyond core's: the table, the split, the window, the network, the baselines."""

    smoke: ClassVar[Mapping[str, Any]] = {  # under a minute on one CPU core
        "data": "synthetic",
        "num_synthetic": 4_000,
        "lookback": 168,
        "horizon": 48,
        "width": 64,
        "segment": 24,
        "epochs": 10,
        "patience": 0,
        "lr": 3e-3,
        "ema": 0.98,
        "log_every": 10,
    }

    data: str = option("etth1", f"{', '.join(ETT)} (downloads it), synthetic, or a CSV file", harmless=True)
    time_column: str | None = option(None, "column of timestamps (none: guessed; -: the file has none)")
    time_format: str | None = option(
        None, "how timestamps are written, as for strptime, or s or ms since 1970 (none: ISO 8601)"
    )
    series_column: str | None = option(
        None, "column that names the series of a row; one network is trained over all (none: the table is one series)"
    )
    target: str | None = option(None, "columns to forecast, as a CSV line: load,price (none: all columns of numbers)")
    fill: Literal["none", "linear", "previous"] = option(
        "none", "missing values and rows: refused; a straight line between neighbors; or the last known value"
    )
    split: str = option("auto", "train/val/test by time: shares (0.7/0.1/0.2), rows, ett, or auto: shares, ett for ETT")
    lookback: int = option(0, "rows that a forecast looks back on; 0: segrnn 720, dlinear 336, lstm 96", low=0)
    horizon: int = option(96, "rows to forecast", low=1, high=10_000)
    epochs: int = option(6, "passes over the training windows", low=1, harmless=True)
    patience: int = option(2, "stop after this many evaluations without a better one; 0: never", low=0, harmless=True)
    batch_size: int = option(64, "windows of one forward pass, over all ranks together", low=1)
    model: Literal["segrnn", "lstm", "dlinear"] = option("segrnn", "network")
    width: int = option(256, "hidden size of segrnn and lstm", low=2, high=4096)
    segment: int = option(48, "rows of a segment, the step of segrnn", low=1)
    dropout: float = option(0.1, "dropout before the last layer of segrnn and lstm", low=0, below=1)
    normalize: Literal["auto", "last", "anchor", "revin", "none"] = option(
        "auto",
        "of each window: subtract its last row; the same, and learn how much of it holds at each step ahead; its mean "
        "and deviation; nothing; auto: dlinear none, else last",
    )
    head: Literal["point", "quantile"] = option("quantile", "one number a step, or quantiles around the same number")
    quantiles: str = option("0.1,0.5,0.9", "levels of the quantile head, rising, 0.5 among them")
    loss: Literal["auto", "mae", "mse", "huber"] = option("auto", "of the point forecast; auto: dlinear mse, else mae")
    lr: float = option(0.0, "peak learning rate; 0: segrnn 0.0004, lstm 0.001, dlinear 0.005", low=0)
    blend: bool = option(
        True, "average the network with the linear model of least squares, and fit intervals on validation windows"
    )
    ema: float = option(0.995, "decay of the moving average of the weights per step; 0 keeps none", low=0, below=1)
    warmup: float = option(0.05, "share of the training in which the rate rises", low=0, below=1)
    season: int = option(
        0, "rows of a season, of the naive baseline; 0: by the frequency, 24 where it is an hour", low=0
    )
    baselines: bool = option(True, "report seasonal-naive and a linear model of the same lookback beside the network")
    backtest: int = option(4, "parts in time that the test forecasts are scored in", low=1, high=100)
    num_synthetic: int = option(8_000, "rows that `synthetic` makes", low=100, high=1_000_000)

    def check(self) -> None:
        """Raises UserError for columns, times, a split, a window or quantiles that cannot be."""
        self.parse_target()
        check_time_format(self.time_format)
        if self.time_format in EPOCH_UNITS and self.time_column in (None, NO_TIME_COLUMN):
            todo = "name the column of timestamps with --time-column"
            raise UserError("any column of numbers could be the time", f"--time-format {self.time_format}", todo)
        for name in ("time_column", "time_format", "series_column", "target"):
            if self.data == "synthetic" and getattr(self, name) is not None:
                todo = "leave it out, or give a table with --data"
                raise UserError("generated data have columns of their own", f"{flag(name)} {getattr(self, name)}", todo)
        if self.data in ETT and (self.split not in ("auto", "ett")):
            raise UserError("the ETT files have a split of their own", f"--split {self.split}", "leave it out")
        parse_split(self.split)
        parse_quantiles(self.quantiles)
        whole = settled(self)
        if self.model == "segrnn" and self.segment > whole.lookback:
            where = f"--segment {self.segment}, --lookback {whole.lookback}"
            raise UserError("a segment is longer than the lookback", where, "give a smaller --segment")
        if self.model == "segrnn" and self.width % 2:
            raise UserError("segrnn needs an even width", f"--width {self.width}", "give an even one")

    def check_present(self, *, resuming: bool) -> None:
        """Raises UserError for data that is not there."""
        if self.data not in (*ETT, "synthetic") and not Path(self.data).is_file():
            todo = f"give {', '.join(ETT)}, synthetic, or a CSV file that is there"
            raise UserError("unknown data", f"--data {self.data}", todo)

    def parse_target(self) -> tuple[str, ...] | None:
        """The names in --target; None for all columns of numbers. Raises UserError where there is none."""
        if self.target is None:
            return None
        try:
            names = tuple(name.strip() for row in csv.reader([self.target], strict=True) for name in row)
        except csv.Error as error:
            raise UserError("not a list of columns", f"--target {self.target!r} ({error})", "see its quotes") from error
        if not all(names) or not names:
            raise UserError("no column to forecast", f"--target {self.target!r}", "leave it out, or give names")
        return names

    @property
    def levels(self) -> tuple[float, ...]:
        """The quantiles of the head; (0.5,) for the point head."""
        return parse_quantiles(self.quantiles) if self.head == "quantile" else (0.5,)


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What export and inference need of a run beyond its settings.

    columns: those that are forecast. time_column, time_format: None where the table has no timestamps, and where they
    are ISO 8601. series_column: None where the table is one series. frequency: how far apart rows are. season: rows of
    the naive baseline's season. mean, std: of each column's training rows, in its own units. rows: of training,
    validation and test, of all series together. num_train: windows. data_sha256: of all numbers of the columns.
    """

    columns: tuple[str, ...]
    time_column: str | None
    time_format: str | None
    series_column: str | None
    frequency: Frequency
    season: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Facts):
    """What the exported file knows besides: rows that it looks back on and forecasts, the rule for missing numbers,
    and the levels of its quantiles."""

    lookback: int
    horizon: int
    fill: Literal["none", "linear", "previous"]
    quantiles: tuple[float, ...]


def settled(config: Config) -> Config:
    """The settings with what the model and the data choose in place of 0 and auto."""
    own = {k: v for k, v in OWN_SETTINGS[config.model].items() if getattr(config, k) in (0, "auto")}
    if config.split == "auto":
        own["split"] = "ett" if config.data in ETT else DEFAULT_SPLIT
    return dataclasses.replace(config, **own)


def parse_split(text: str) -> tuple[float, float, float] | None:
    """Three parts of the rows as --split says them, shares or numbers; None for auto and ett. Raises UserError."""
    if text in ("auto", "ett"):
        return None
    try:
        train, val, test = (real_number(part) for part in text.split("/"))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError("not a split", f"--split {text}", "give ett, or TRAIN/VAL/TEST such as 0.7/0.1/0.2") from error
    shares = math.isclose(train + val + test, 1, abs_tol=1e-9)
    if min(train, val, test) <= 0 or not (shares or all(part.is_integer() for part in (train, val, test))):
        todo = "give three shares that add up to 1, or three numbers of rows"
        raise UserError("not a split", f"--split {text}", todo)
    return train, val, test


def parse_quantiles(text: str) -> tuple[float, ...]:
    """Levels between 0 and 1 as --quantiles says them. Raises UserError unless they rise and hold 0.5."""
    try:
        levels = tuple(real_number(part.strip()) for part in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise UserError("not quantiles", f"--quantiles {text}", "give numbers such as 0.1,0.5,0.9") from error
    rising = all(low < high for low, high in itertools.pairwise(levels))
    if not rising or not 0 < levels[0] <= levels[-1] < 1 or 0.5 not in levels or len(levels) % 2 == 0:
        todo = "give an odd number of rising levels between 0 and 1, with 0.5 in the middle"
        raise UserError("not quantiles", f"--quantiles {text}", todo)
    if levels[len(levels) // 2] != 0.5:
        raise UserError("not quantiles", f"--quantiles {text}", "0.5 has to stand in the middle")
    return levels
