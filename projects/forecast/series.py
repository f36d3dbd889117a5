"""A table as numbers over evenly spaced times: columns chosen, frequency checked, what is missing filled by rule.

Training and inference both read with it, so they refuse and fill the same. No torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from projects.forecast.config import NO_TIME_COLUMN
from projects.forecast.frequency import Frequency
from projects.forecast.spacing import Spacing, Times, find_spacing, times_after
from projects.forecast.table import (
    Numbers,
    Table,
    checked_numbers,
    column_of,
    is_missing,
    is_number,
    parse_numbers,
    parse_times,
    read_table,
)
from projects.forecast.timestamps import TimeForm, parse_time

Fill = Literal["none", "linear", "previous"]
_FILL_ADVICE = "write a number, or give --fill linear or previous in training"


@dataclass(frozen=True)
class Series:
    """Columns over evenly spaced times. values: float64 [rows, columns], finite. times: datetime64[us], as written.

    name: of this series where a table holds several, else "". time_column, form: None where rows are only counted.
    filled: numbers that the rule put in. left_out: columns that hold no numbers.
    """

    columns: tuple[str, ...]
    values: NDArray[np.float64]
    times: Times
    frequency: Frequency
    name: str = ""
    time_column: str | None = None
    form: TimeForm | None = None
    filled: int = 0
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def time_of(self, row: int) -> str:
        """The time of a row, as the file writes it."""
        return self.write_time(self.times[row])

    def times_after(self, num: int) -> Times:
        """The times of the `num` rows that follow the last one."""
        return times_after(self.frequency, self.times[-1], num)

    def write_time(self, time: np.datetime64) -> str:
        """A time in the form of the file's own."""
        if self.form is None:
            return str(time.astype(np.int64))
        moment: datetime = time.astype(datetime)
        return self.form.write(moment)


def read_series(
    path: Path,
    *,
    time_column: str | None = None,
    time_format: str | None = None,
    series_column: str | None = None,
    target: Sequence[str] | None = None,
    fill: Fill = "none",
    frequency: Frequency | None = None,
) -> tuple[Series, ...]:
    """The columns named by `target`, or all that hold numbers, in the order of the file; one series, or one for each
    value of `series_column`, in the order in which they first appear.

    time_column: None guesses it, "-" says that there is none. frequency: what is expected, where it is known. Raises
    UserError, by line and column, for a file that is no such table, and for rows and values that are missing where
    `fill` is "none".
    """
    table = read_table(path)
    series = None if series_column is None else column_of(table, series_column)
    time = _find_time_column(table, time_column, time_format, series)
    targets, left_out = _find_targets(table, {time, series}, target)
    values = np.stack([checked_numbers(table, column, numbers) for column, numbers in targets.items()], axis=1)
    times, form = (None, None) if time is None else parse_times(table, time, time_format)
    if times is not None and series is None:
        _refuse_several_series(table, times, left_out)
    build = partial(
        Series,
        columns=tuple(table.header[column] for column in targets),
        time_column=None if time is None else table.header[time],
        form=form,
        left_out=left_out,
    )
    result: list[Series] = []
    for name, rows in _rows_by_name(table, series).items():
        part = table.subset(rows)
        its_times = np.arange(len(rows)).astype("datetime64[us]") if times is None else times[rows]
        spacing = _find_spacing(part, its_times, time, frequency)
        complete, filled = _complete(part, values[rows], spacing, list(targets), time, fill)
        if len(complete) > len(its_times):
            its_times = np.concatenate([its_times[:1], times_after(spacing.frequency, its_times[0], len(complete) - 1)])
        result.append(build(values=complete, times=its_times, frequency=spacing.frequency, name=name, filled=filled))
        if not spacing.frequency.is_like(result[0].frequency):
            where = f"{path}: {result[0].name} {result[0].frequency}, {name} {spacing.frequency} apart"
            raise UserError("series of unlike frequencies", where, "resample them")
    return tuple(result)


def _find_spacing(table: Table, times: Times, time: int | None, expected: Frequency | None) -> Spacing:
    """How the rows of one series lie in time; one step after the other where there are no times."""
    if time is None:
        return Spacing(Frequency("row", 1), np.ones(len(times), np.int64))
    return find_spacing(times, [table.where(row, time) for row in range(len(times))], expected)


def _find_time_column(table: Table, name: str | None, time_format: str | None, series: int | None) -> int | None:
    """The column of timestamps by name, or the first that looks like one; None where there is none by intent."""
    if name == NO_TIME_COLUMN:
        return None
    if name is not None:
        return column_of(table, name)
    for column in range(len(table.header)):
        cell = next((row[column] for row in table.rows if not is_missing(row[column])), "")
        if column != series and (time_format or not is_number(cell)) and parse_time(cell, time_format) is not None:
            return column
    todo = "name it with --time-column (and --time-format), or give --time-column - where rows are evenly spaced"
    raise UserError("no column of timestamps", f"{table.path}: {', '.join(table.header)}", todo)


def _find_targets(
    table: Table, others: set[int | None], names: Sequence[str] | None
) -> tuple[dict[int, Numbers], tuple[str, ...]]:
    """The columns to forecast with their numbers, and the names of columns that hold none.

    others: the columns of times and of series' names. names: None, or "all" where no column is called so, stands for
    all columns of numbers.
    """
    if names is not None and (list(names) != ["all"] or "all" in table.header):
        columns = [column_of(table, name) for name in names]
        if len(set(columns)) < len(columns) or others & set(columns):
            raise UserError("a column that cannot be a target", ", ".join(names), "name columns of numbers, each once")
        return {column: parse_numbers(table, column) for column in columns}, ()
    targets: dict[int, Numbers] = {}
    left_out: list[str] = []
    for column in range(len(table.header)):
        if column not in others:
            numbers = parse_numbers(table, column)
            if numbers.is_numeric:
                targets[column] = numbers
            else:
                left_out.append(table.header[column])
    if not targets:
        raise UserError("no column of numbers", table.path, "give a table with numbers over time")
    return targets, tuple(left_out)


def _rows_by_name(table: Table, series: int | None) -> dict[str, list[int]]:
    """The rows of each series. Raises UserError for a row without a name."""
    if series is None:
        return {"": list(range(len(table.rows)))}
    rows: dict[str, list[int]] = {}
    for number, row in enumerate(table.rows):
        if not row[series]:
            raise UserError("a row of no series", table.where(number, series), "give every row its series' name")
        rows.setdefault(row[series], []).append(number)
    return rows


def _refuse_several_series(table: Table, times: Times, names: Sequence[str]) -> None:
    """Raises UserError where times go back or repeat because the table holds several series, which a column tells
    apart. names: the columns that hold no numbers, and may be that one."""
    if (np.diff(times).astype(np.int64) > 0).all():
        return
    usual = [name for name in table.header if name.lower() in ("unique_id", "series", "series_id", "item_id", "id")]
    for name in dict.fromkeys([*usual, *names]):
        groups = _rows_by_name(table._replace(rows=[[row[column_of(table, name)] or "-"] for row in table.rows]), 0)
        if 1 < len(groups) <= len(times) // 2 and all(
            (np.diff(times[rows]).astype(np.int64) > 0).all() for rows in groups.values()
        ):
            where = f"{table.path}: column {name} names {len(groups):,}"
            raise UserError("several series in one table", where, f"give --series-column {name}, or one of them alone")


def _complete(
    table: Table, values: NDArray[np.float64], spacing: Spacing, targets: list[int], time: int | None, fill: Fill
) -> tuple[NDArray[np.float64], int]:
    """Values for every step of time, and how many of them the rule put in. Raises UserError where it cannot."""
    if time is not None and spacing.steps.max() > 1 and fill == "none":
        row = int(np.flatnonzero(spacing.steps > 1)[0])
        missing = (
            f"{table.where(row, time)} comes {spacing.steps[row]} steps of {spacing.frequency} after the row before"
        )
        raise UserError("rows are missing", missing, "add them, or give --fill linear or previous in training")
    at = np.cumsum(spacing.steps) - 1
    if at[-1] + 1 > 2 * len(values):
        where = f"{table.path}: {len(values)} rows in {at[-1] + 1} steps of {spacing.frequency}"
        raise UserError("more rows are missing than there", where, "check the timestamps")
    for number, column in enumerate(targets):
        unknown = np.flatnonzero(np.isnan(values[:, number]))
        if unknown.size and fill == "none":
            raise UserError("a value is missing", table.where(int(unknown[0]), column), _FILL_ADVICE)
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
