"""The rhythm of a table's rows: found, checked for gaps, filled by a rule, and continued beyond the last row.

Rows are a fixed time apart, or whole calendar months (a day of the month, or its last). No torch.
"""

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError

Times = NDArray[np.datetime64]
DAY, HOUR, MINUTE, SECOND = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000
LAST_YEAR = 9999


@dataclass(frozen=True)
class Frequency:
    """`count` units between neighboring rows. unit: microsecond, month, month end, or row where no time is known."""

    unit: Literal["microsecond", "month", "month end", "row"]
    count: int

    def __str__(self) -> str:
        if self.unit != "microsecond":
            return f"{self.count} {self.unit}{'s' if self.count > 1 else ''}"
        for name, size in (("day", DAY), ("hour", HOUR), ("minute", MINUTE), ("second", SECOND)):
            if self.count % size == 0:
                return f"{self.count // size} {name}{'s' if self.count > size else ''}"
        return f"{self.count / SECOND:g} seconds"

    def season(self, longest: int) -> int:
        """Rows of the longest natural season that has 2 to `longest` of them: a day, an hour, a minute for rows within
        a day, a week for days, 52 weeks for weeks, a year for months; 1 where there is none."""
        periods: tuple[int, ...] = (12,) if self.unit != "row" else ()
        if self.unit == "microsecond":
            periods = (
                (364 * DAY,) if self.count >= 7 * DAY else (7 * DAY,) if self.count >= DAY else (DAY, HOUR, MINUTE)
            )
        fitting = [period // self.count for period in periods if period % self.count == 0]
        return next((rows for rows in fitting if 2 <= rows <= longest), 1)

    def rows_of_days(self, days: int) -> int | None:
        """Rows that so many days hold; None where that is no whole number."""
        if self.unit != "microsecond" or days * DAY % self.count:
            return None
        return days * DAY // self.count

    def after(self, last: np.datetime64, num: int) -> Times:
        """The `num` timestamps that follow one. Raises UserError beyond the year 9999."""
        start = last.astype("datetime64[us]").astype(np.int64)
        if self.unit in ("microsecond", "row"):
            found = start + self.count * np.arange(1, num + 1)
        else:
            found = np.array([self._month_after(last.astype(datetime), k) for k in range(1, num + 1)])
        limit = np.datetime64(f"{LAST_YEAR}-12-31", "us").astype(np.int64)
        if self.unit != "row" and (found > limit).any():
            raise UserError(
                f"a forecast beyond the year {LAST_YEAR}", f"{num} rows after {last}", "check the timestamps"
            )
        following: Times = found.astype("datetime64[us]")
        return following

    def _month_after(self, last: datetime, number: int) -> int:
        """The timestamp, in microseconds since 1970, that many steps of months later."""
        month = last.year * 12 + last.month - 1 + number * self.count
        year, month = month // 12, month % 12 + 1
        if year > LAST_YEAR:
            return int(np.iinfo(np.int64).max)
        day = calendar.monthrange(year, month)[1] if self.unit == "month end" else last.day
        return int((last.replace(year=year, month=month, day=day) - datetime(1970, 1, 1)) / timedelta(microseconds=1))


@dataclass(frozen=True)
class Rhythm:
    """The frequency of a table, and how many steps each row lies behind the one before it (1, or more at a gap)."""

    frequency: Frequency
    steps: NDArray[np.int64]


def find_rhythm(times: Times, named: Sequence[str]) -> Rhythm:
    """The most common distance of rows; all others have to be multiples of it.

    times: datetime64[us] [N]. named: for each row, what a message calls it. Raises UserError for fewer than three
    rows, and by name for rows that are out of order, twice there, or off the rhythm.
    """
    if len(times) < 3:
        raise UserError("too few rows", f"{len(times)}", "a frequency shows in three rows at least")
    apart = np.diff(times).astype(np.int64)
    if (wrong := np.flatnonzero(apart <= 0)).size:
        row = int(wrong[0])
        if apart[row] == 0:
            raise UserError("a timestamp stands twice", f"{named[row + 1]}", "keep one of the two rows")
        where = f"{named[row + 1]} follows {named[row].rpartition(': ')[2]}"
        raise UserError("rows are not in the order of time", where, "sort the file")
    frequency, steps, even = in_time(apart)
    if frequency.count >= 28 * DAY or not even.all():
        months = in_months(times)
        if months is not None:
            frequency, steps, even = months
    if not even.all():
        row = int(np.flatnonzero(~even)[0])
        where = f"{named[row + 1]} follows {named[row].rpartition(': ')[2]}, most rows are {frequency} apart"
        raise UserError("rows are not evenly spaced", where, "resample the series")
    return Rhythm(frequency, np.concatenate([np.ones(1, np.int64), steps]))


def in_time(apart: NDArray[np.int64]) -> tuple[Frequency, NDArray[np.int64], NDArray[np.bool_]]:
    """Frequency, steps and whether each is whole, by the most common distance in microseconds."""
    count = most_common(apart)
    return Frequency("microsecond", count), apart // count, apart % count == 0


def in_months(times: Times) -> tuple[Frequency, NDArray[np.int64], NDArray[np.bool_]] | None:
    """The same by calendar months; None where the day of the month or the time of day varies."""
    month = times.astype("datetime64[M]")
    first = month.astype("datetime64[us]")
    last_day = (month + np.timedelta64(1, "M")).astype("datetime64[D]") - np.timedelta64(1, "D")
    since_first, since_last = times - first, times - last_day.astype("datetime64[us]")
    same_day, month_end = (since_first == since_first[0]).all(), (since_last == since_last[0]).all()
    apart = np.diff(month).astype(np.int64)
    if not (same_day or (month_end and since_last[0] >= np.timedelta64(0, "us"))) or (apart <= 0).any():
        return None
    count = most_common(apart)
    return Frequency("month" if same_day else "month end", count), apart // count, apart % count == 0


def most_common(values: NDArray[np.int64]) -> int:
    """The value that stands there most often; the smallest of several."""
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])
