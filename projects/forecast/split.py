"""Series cut in time into training, validation and test, and the windows of each part. No torch.

The windows of validation and test look back into the rows before their part, as in the literature; no row is forecast
in two parts.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from projects.forecast.config import Config, parse_split
from projects.forecast.series import Series

Starts = NDArray[np.int64]  # the first row of each window, counted over all series
_ETT_DAYS = (360, 120, 120)


def split_rows(series: Series, config: Config) -> tuple[int, int, int]:
    """Rows of train, val and test, which follow one another from the first row on."""
    parts = parse_split(config.split)
    if parts is None:
        counts = [series.frequency.rows_of_days(days) for days in _ETT_DAYS]
        train, val, test = (count or 0 for count in counts)
        if not train or train + val + test > len(series):
            where = f"{len(series)} rows, {series.frequency} apart"
            raise UserError("no 20 months of 30 days", where, "give another --split")
        return train, val, test
    if sum(parts) > 1.5:
        train, val, test = (round(part) for part in parts)
        if train + val + test > len(series):
            where = f"--split {config.split}, {len(series)} rows"
            raise UserError("more rows than there are", where, "give smaller numbers")
        return train, val, test
    train, test = int(parts[0] * len(series)), int(parts[2] * len(series))
    return train, len(series) - train - test, test


def window_starts(
    series: Sequence[Series], rows: Sequence[tuple[int, int, int]], config: Config
) -> tuple[Starts, Starts, Starts]:
    """The first rows of the windows of train, val and test. Raises UserError for a series without any in a part."""
    starts: tuple[list[Starts], ...] = ([], [], [])
    begin = 0
    for each, (train, val, test) in zip(series, rows, strict=True):
        firsts = (0, train - config.lookback, train + val - config.lookback)
        spans = (train - config.lookback, val, test)  # rows on which a part's forecasts lie
        parts = zip(("train", "val", "test"), (train, val, test), firsts, spans, starts, strict=True)
        for part, num, first, span, part_starts in parts:
            if span < config.horizon:
                wanted = config.horizon + (config.lookback if part == "train" else 0)
                where = f"{part}{f' of {each.name}' if each.name else ''} has {num} rows, lookback {config.lookback}"
                where += f" and horizon {config.horizon} need {wanted}"
                todo = "give a smaller --lookback or --horizon, or another --split"
                raise UserError("too short a series", where, todo)
            part_starts.append(begin + first + np.arange(span - config.horizon + 1, dtype=np.int64))
        begin += len(each)
    train_starts, val_starts, test_starts = (np.concatenate(part) for part in starts)
    return train_starts, val_starts, test_starts


def training_rows(series: Sequence[Series], rows: Sequence[tuple[int, int, int]]) -> list[NDArray[np.float64]]:
    """The training rows of each series, in original units."""
    return [each.values[:train] for each, (train, _, _) in zip(series, rows, strict=True)]
