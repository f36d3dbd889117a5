"""Times of rows: how far apart they are is detected, checked for gaps, and continued after the last row. No torch."""

import calendar
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from projects.forecast.frequency import DAY, Frequency

Times = NDArray[np.datetime64]
_LAST_YEAR = 9999


class Spacing(NamedTuple):
    """How a table's rows lie in time. steps: for each row, how many steps it lies behind the one before it, 1, or more
    at a gap; int64 [rows]."""

    frequency: Frequency
    steps: NDArray[np.int64]


class _Fit(NamedTuple):
    """A frequency tried on times: steps between neighboring rows, and which of them are whole; both [rows - 1]."""

    frequency: Frequency
    steps: NDArray[np.int64]
    whole: NDArray[np.bool_]


def find_spacing(times: Times, names: Sequence[str], expected: Frequency | None = None) -> Spacing:
    """The most common distance of rows; all others have to be multiples of it.

    times: datetime64[us] [N]. names: for each row, what a message calls it. expected: taken instead where rows fit it,
    as a short table may fit several. Raises UserError for fewer than three rows, and by name for rows that are out of
    order, twice there, or in between.
    """
    if len(times) < 3:
        raise UserError("too few rows", f"{len(times)}", "a frequency shows in three rows at least")
    apart = np.diff(times).astype(np.int64)
    if (wrong := np.flatnonzero(apart <= 0)).size:
        row = int(wrong[0])
        if apart[row] == 0:
            raise UserError("a timestamp stands twice", f"{names[row + 1]}", "keep one of the two rows")
        where = f"{names[row + 1]} follows {names[row].rpartition(': ')[2]}"
        raise UserError("rows are not in the order of time", where, "sort the file")
    fit = _best_fit(times, apart, expected)
    if not fit.whole.all():
        row = int(np.flatnonzero(~fit.whole)[0])
        where = f"{names[row + 1]} follows {names[row].rpartition(': ')[2]}, most rows are {fit.frequency} apart"
        raise UserError("rows are not evenly spaced", where, "resample the series")
    return Spacing(fit.frequency, np.concatenate([np.ones(1, np.int64), fit.steps]))


def times_after(frequency: Frequency, last: np.datetime64, num: int) -> Times:
    """The `num` timestamps that follow one. Raises UserError beyond the year 9999."""
    start = last.astype("datetime64[us]").astype(np.int64)
    steps = frequency.count * np.arange(1, num + 1)
    if frequency.unit in ("microsecond", "row"):
        following = start + steps
    elif frequency.unit == "business day":
        day = last.astype("datetime64[D]")
        following = start + (np.busday_offset(day, steps, roll="backward") - day).astype(np.int64) * DAY
    else:
        following = np.array([_month_after(last.astype(datetime), int(step), frequency.month_day) for step in steps])
    limit = np.datetime64(f"{_LAST_YEAR}-12-31", "us").astype(np.int64)
    if frequency.unit != "row" and (following > limit).any():
        raise UserError(f"a forecast beyond the year {_LAST_YEAR}", f"{num} rows after {last}", "check the timestamps")
    times: Times = following.astype("datetime64[us]")
    return times


def _best_fit(times: Times, apart: NDArray[np.int64], expected: Frequency | None) -> _Fit:
    """The frequency that explains all distances, `expected` first; the most common distance where none does."""
    by_time = _in_time(apart)
    by_day = _in_business_days(times)
    by_month = _in_months(times) if by_time.frequency.count >= 28 * DAY or not by_time.whole.all() else None
    if expected is not None:
        for fit in (by_time, _in_business_days(times, known=True), _in_months(times, expected.month_day)):
            if fit is not None and fit.whole.all() and fit.frequency.is_like(expected):
                return fit
    return by_day or by_month or by_time


def _in_time(apart: NDArray[np.int64]) -> _Fit:
    """By the most common distance in microseconds."""
    count = _most_common(apart)
    return _Fit(Frequency("microsecond", count), apart // count, apart % count == 0)


def _in_business_days(times: Times, *, known: bool = False) -> _Fit | None:
    """By days from Monday to Friday; None unless rows come daily at one time of day and leave weekends out.

    known: that they are business days; otherwise at least one weekend must show it.
    """
    days = times.astype("datetime64[D]")
    clock = times - days
    if (clock != clock[0]).any() or not np.is_busday(days).all():
        return None
    steps = np.busday_count(days[:-1], days[1:])
    weekends = np.diff(days).astype(np.int64) != steps
    if _most_common(steps) != 1 or not (known or (weekends & (steps == 1)).any()):
        return None
    return _Fit(Frequency("business day", 1), steps, np.ones(len(steps), np.bool_))


def _in_months(times: Times, month_day: int = 0) -> _Fit | None:
    """By calendar months; None where the time of day varies, or the day of the month more than months' ends explain.

    month_day: the day that rows should lie on, where it is known.
    """
    month, day = times.astype("datetime64[M]"), times.astype("datetime64[D]")
    numbers = (day - month.astype("datetime64[D]")).astype(np.int64) + 1
    lengths = ((month + np.timedelta64(1, "M")).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(
        np.int64
    )
    month_day = month_day if month_day >= numbers.max() else int(numbers.max())
    clock, apart = times - day, np.diff(month).astype(np.int64)
    if (clock != clock[0]).any() or (numbers != np.minimum(month_day, lengths)).any() or (apart <= 0).any():
        return None
    count = _most_common(apart)
    return _Fit(Frequency("month", count, month_day), apart // count, apart % count == 0)


def _month_after(last: datetime, months: int, month_day: int) -> int:
    """The timestamp, in microseconds since 1970, that many months later."""
    month = last.year * 12 + last.month - 1 + months
    year, month = month // 12, month % 12 + 1
    if year > _LAST_YEAR:
        return int(np.iinfo(np.int64).max)
    day = min(month_day, calendar.monthrange(year, month)[1])
    return int((last.replace(year=year, month=month, day=day) - datetime(1970, 1, 1)) / timedelta(microseconds=1))


def _most_common(values: NDArray[np.int64]) -> int:
    """The value that stands there most often; the smallest of several."""
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[counts.argmax()])
