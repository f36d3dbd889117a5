"""A table as numbers over evenly spaced times: its columns chosen, its rhythm checked, what is missing filled by rule.

Training and inference both read with it, so they refuse and fill the same. No torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from projects.forecast.config import NO_TIME_COLUMN
from projects.forecast.frequency import Frequency, Rhythm, Times, find_rhythm
from projects.forecast.table import (
    DECIMAL_COMMA,
    MISSING,
    NUMBER,
    Table,
    column_of,
    moment_of,
    numbers,
    read_table,
    timestamps,
)

Fill = Literal["none", "linear", "previous"]
FILL_ADVICE = "write a number, or give --fill linear or previous in training"


@dataclass(frozen=True)
class Series:
    """Columns over evenly spaced times. values: float64 [rows, columns], finite. times: datetime64[us], as written.

    time_column: None where rows are only counted. example: the last timestamp as the file writes it. offset: of all
    timestamps from UTC, None where they name no zone. filled: numbers that the rule put in. left_out: columns that
    hold no numbers.
    """

    columns: tuple[str, ...]
    values: NDArray[np.float64]
    times: Times
    frequency: Frequency
    time_column: str | None = None
    time_format: str | None = None
    example: str = "2000-01-01 00:00:00"
    offset: timedelta | None = None
    filled: int = 0
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def shown(self, row: int) -> str:
        """The time of a row."""
        return self.written(self.times[row])

    def written(self, time: np.datetime64) -> str:
        """A time the way that the file writes its own."""
        if self.frequency.unit == "row":
            return str(time.astype(np.int64))
        moment: datetime = time.astype(datetime)
        if self.offset is not None:
            moment = moment.replace(tzinfo=timezone(self.offset))
        if self.time_format is not None:
            return moment.strftime(self.time_format)
        if re.fullmatch(r"\d{4}-\d\d-\d\d", self.example):
            return moment.date().isoformat()
        with_seconds = re.match(r"\d{4}-\d\d-\d\d.\d\d:\d\d:", self.example)
        text = moment.isoformat(self.example[10:11] or "T", "auto" if with_seconds else "minutes")
        return text.replace("+00:00", "Z") if self.example.endswith("Z") else text


def read_series(
    path: Path,
    *,
    time_column: str | None = None,
    time_format: str | None = None,
    target: Sequence[str] | None = None,
    fill: Fill = "none",
) -> Series:
    """The columns named by `target`, or all that hold numbers, in the order of the file.

    time_column: None guesses it, "-" says that there is none. Raises UserError, by line and column, for a file that
    is no such table, and for rows and values that are missing where `fill` is "none".
    """
    table = read_table(path)
    time = find_time_column(table, time_column, time_format)
    wanted, left_out = find_targets(table, time, target)
    values = np.stack([numbers(table, column) for column in wanted], axis=1)
    if time is None:
        times = np.arange(len(values)).astype("datetime64[us]")
        rhythm, offset = Rhythm(Frequency("row", 1), np.ones(len(values), np.int64)), None
    else:
        times, offset = timestamps(table, time, time_format)
        rhythm = find_rhythm(times, [table.where(row, time) for row in range(len(times))])
    values, filled = complete(table, values, rhythm, wanted, time, fill)
    if len(values) > len(times):
        times = np.concatenate([times[:1], rhythm.frequency.after(times[0], len(values) - 1)])
    return Series(
        columns=tuple(table.header[column] for column in wanted),
        values=values,
        times=times,
        frequency=rhythm.frequency,
        time_column=None if time is None else table.header[time],
        time_format=time_format,
        example="" if time is None else table.rows[-1][time],
        offset=offset,
        filled=filled,
        left_out=left_out,
    )


def find_time_column(table: Table, name: str | None, time_format: str | None) -> int | None:
    """The column of timestamps by name, or the first that looks like one; None where there is none by intent."""
    if name == NO_TIME_COLUMN:
        return None
    if name is not None:
        return column_of(table, name)
    for column, cell in enumerate(table.rows[0]):
        if not NUMBER.fullmatch(cell) and moment_of(cell, time_format) is not None:
            return column
    todo = "name it with --time-column (and --time-format), or give --time-column - where rows are evenly spaced"
    raise UserError("no column of timestamps", f"{table.path}: {', '.join(table.header)}", todo)


def find_targets(table: Table, time: int | None, names: Sequence[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """The columns to forecast, and the names of those that hold no numbers."""
    if names is not None:
        columns = [column_of(table, name) for name in names]
        if len(set(columns)) < len(columns) or time in columns:
            raise UserError("a column that cannot be a target", ", ".join(names), "name columns of numbers, each once")
        return columns, ()
    numeric_columns: list[int] = []
    left_out: list[int] = []
    for column in range(len(table.header)):
        if column != time:
            known = next((row[column] for row in table.rows if row[column].lower() not in MISSING), "")
            numeric = not known or NUMBER.fullmatch(known) or DECIMAL_COMMA.fullmatch(known)
            (numeric_columns if numeric else left_out).append(column)
    if not numeric_columns:
        raise UserError("no column of numbers", table.path, "give a table with numbers over time")
    return numeric_columns, tuple(table.header[column] for column in left_out)


def complete(
    table: Table, values: NDArray[np.float64], rhythm: Rhythm, wanted: list[int], time: int | None, fill: Fill
) -> tuple[NDArray[np.float64], int]:
    """Values for every step of time, and how many of them the rule put in. Raises UserError where it cannot."""
    if time is not None and rhythm.steps.max() > 1 and fill == "none":
        row = int(np.flatnonzero(rhythm.steps > 1)[0])
        missing = f"{table.where(row, time)} comes {rhythm.steps[row]} steps of {rhythm.frequency} after the row before"
        raise UserError("rows are missing", missing, "add them, or give --fill linear or previous in training")
    at = np.cumsum(rhythm.steps) - 1
    if at[-1] + 1 > 2 * len(values):
        where = f"{table.path}: {len(values)} rows in {at[-1] + 1} steps of {rhythm.frequency}"
        raise UserError("more rows are missing than there", where, "check the timestamps")
    for number, column in enumerate(wanted):
        unknown = np.flatnonzero(np.isnan(values[:, number]))
        if unknown.size and fill == "none":
            raise UserError("a value is missing", table.where(int(unknown[0]), column), FILL_ADVICE)
        ends = {"previous": [0], "linear": [0, len(values) - 1], "none": []}[fill]
        for row in sorted(set(ends) & set(unknown.tolist())):
            todo = "cut the table there: the rule needs known numbers " + ("first" if row == 0 else "last")
            raise UserError(f"--fill {fill} cannot know a value", table.where(row, column), todo)
    whole = np.full((at[-1] + 1, values.shape[1]), np.nan)
    whole[at] = values
    unknown_cells = np.isnan(whole)
    rows = np.arange(len(whole))
    for column in np.flatnonzero(unknown_cells.any(axis=0)).tolist():
        known = np.flatnonzero(~unknown_cells[:, column])
        if fill == "linear":
            whole[:, column] = np.interp(rows, known, whole[known, column])
        else:
            whole[:, column] = whole[known[np.searchsorted(known, rows, side="right") - 1], column]
    return whole, int(unknown_cells.sum())
