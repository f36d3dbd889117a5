"""How far apart rows of a table may be: the value that settings, run and exported file keep. No numpy.

Rows are a fixed time apart, or whole calendar months (on one day of the month, or its last where it is shorter), or
business days, Monday to Friday.
"""

from dataclasses import dataclass
from typing import Literal

DAY, HOUR, MINUTE, SECOND = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000  # microseconds


@dataclass(frozen=True)
class Frequency:
    """The distance of neighboring rows: `count` of `unit`, as in "15 minutes" or "3 months".

    unit: row where no time is known. count: microseconds, months, business days or rows, as the unit says. month_day:
    the day of the month that rows lie on, 1 to 31, or a shorter month's last; 0 where the unit is not month.
    """

    unit: Literal["microsecond", "month", "business day", "row"]
    count: int
    month_day: int = 0

    def __str__(self) -> str:
        if self.unit != "microsecond":
            at_the_end = " end" if self.month_day == 31 else ""
            return f"{self.count} {self.unit}{at_the_end}{'s' if self.count > 1 else ''}"
        for name, size in (("day", DAY), ("hour", HOUR), ("minute", MINUTE), ("second", SECOND)):
            if self.count % size == 0:
                return f"{self.count // size} {name}{'s' if self.count > size else ''}"
        return f"{self.count / SECOND:g} seconds"

    def is_like(self, other: "Frequency") -> bool:
        """Whether rows are equally far apart, on whatever day of a month."""
        return (self.unit, self.count) == (other.unit, other.count)

    def season(self, longest: int) -> int:
        """Rows of the longest natural season that has 2 to `longest` of them: a day, an hour, a minute for rows within
        a day, a week for days, 52 weeks for weeks, a year for months; 1 where there is none."""
        periods: tuple[int, ...] = {"month": (12,), "business day": (5,)}.get(self.unit, ())
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
