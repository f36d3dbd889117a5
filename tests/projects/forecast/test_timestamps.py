"""Times are written as the file writes them, whatever form that is."""

import re

import numpy as np
import pytest

from core.errors import UserError
from projects.forecast.series import read_series
from projects.forecast.timestamps import check_time_format
from tests.projects.forecast.conftest import MakeTable

HOURS = ("2024-02-29 23:00", "2024-03-01 00:00", "2024-03-01 01:00", "2024-03-01 02:00")
FORMS = {
    "ISO": (None, HOURS, "2024-03-01 03:00"),
    "seconds": (None, [f"{hour}:00" for hour in HOURS], "2024-03-01 03:00:00"),
    "milliseconds": (None, [f"{hour}:00.000" for hour in HOURS], "2024-03-01 03:00:00.000"),
    "nanoseconds": (None, [f"{hour}:00.000000000" for hour in HOURS], "2024-03-01 03:00:00.000000000"),
    "T and Z": (None, [f"{hour.replace(' ', 'T')}Z" for hour in HOURS], "2024-03-01T03:00Z"),
    "offset": (None, [f"{hour}+05:30" for hour in HOURS], "2024-03-01 03:00+05:30"),
    "offset without colon": (None, [f"{hour}:00+0530" for hour in HOURS], "2024-03-01 03:00:00+0530"),
    "basic": (None, [hour.replace("-", "").replace(":", "").replace(" ", "T") for hour in HOURS], "20240301T0300"),
    "midnight as a date": (None, ["2024-02-29 22:00", "2024-02-29 23:00", "2024-03-01"], "2024-03-01 01:00"),
    "midnights as dates": (None, ["2024-03-01", "2024-03-01 12:00:00", "2024-03-02"], "2024-03-02 12:00:00"),
    "dates": (None, ["2024-02-28", "2024-02-29", "2024-03-01"], "2024-03-02"),
    "compact dates": (None, ["20240228", "20240229", "20240301"], "20240302"),
    "weeks": (None, ["2024-W08", "2024-W09", "2024-W10"], "2024-W11"),
    "days of weeks": (None, ["2024-W09-5", "2024-W09-6", "2024-W09-7"], "2024-W10-1"),
    "seconds since 1970": ("s", ["1709251200", "1709254800", "1709258400"], "1709262000"),
    "milliseconds since 1970": ("ms", ["1709251200000", "1709251200500", "1709251201000"], "1709251201500"),
    "German": ("%d.%m.%Y %H:%M", ["29.02.2024 23:00", "01.03.2024 00:00", "01.03.2024 01:00"], "01.03.2024 02:00"),
    "American": ("%m/%d/%Y %H:%M", ["2/29/2024 23:00", "3/1/2024 0:00", "3/1/2024 1:00"], "3/1/2024 2:00"),
    "name of a zone": ("%Y-%m-%d %H:%M %Z", [f"{hour} CET" for hour in HOURS], "2024-03-01 03:00 CET"),
    "zone with a colon": ("%Y-%m-%d %H:%M%z", [f"{hour}-03:00" for hour in HOURS], "2024-03-01 03:00-03:00"),
    "zone without a colon": ("%Y-%m-%d %H:%M%z", [f"{hour}-0300" for hour in HOURS], "2024-03-01 03:00-0300"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_next_time_is_written_in_the_form_of_the_file(name: str, make_table: MakeTable) -> None:
    time_format, cells, expected = FORMS[name]

    def edit(rows: list[list[str]]) -> None:
        for row, cell in zip(rows[1:], cells, strict=True):
            row[0] = cell

    path = make_table(len(cells), edit=edit)
    (series,) = read_series(path, time_column="date", time_format=time_format)
    assert series.write_time(series.times_after(1)[0]) == expected


@pytest.mark.parametrize(
    ("time_format", "cells", "named"),
    [
        ("%Y-%m-%d %H:%M %Z", [f"{HOURS[0]} CET", f"{HOURS[1]} CET", f"{HOURS[2]} CEST"], "line 4, column date"),
        ("%Y-%m-%d %H:%M%z", [f"{HOURS[0]}+01:00", f"{HOURS[1]}+01:00", f"{HOURS[2]}+02:00"], "line 4, column date"),
        ("s", ["1709251200", "1709254800", "1709258400.5"], "line 4, column date"),
        ("s", ["1709251200", "1709254800", "999999999999999"], "line 4, column date"),
        (None, ["2024-01-01", "2024-01-02", "2024-01-32"], "line 4, column date"),
    ],
)
def test_a_time_that_is_not_like_the_others_is_named(
    time_format: str | None, cells: list[str], named: str, make_table: MakeTable
) -> None:
    def edit(rows: list[list[str]]) -> None:
        for row, cell in zip(rows[1:], cells, strict=True):
            row[0] = cell

    with pytest.raises(UserError, match=named):
        read_series(make_table(len(cells), edit=edit), time_column="date", time_format=time_format)


@pytest.mark.parametrize("time_format", ["%d %d", "%Q", "%H:%M", "%", "", "nonsense", "%Y%Y%Y"])
def test_a_format_that_cannot_be_read_with_is_refused(time_format: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--time-format {time_format}")):
        check_time_format(time_format)


@pytest.mark.parametrize(
    "time_format", [None, "s", "ms", "%Y-%m-%d", "%d.%m.%y %H:%M", "%Y-%m-%d %H:%M %Z", "%G-W%V-%u"]
)
def test_usual_formats_are_taken(time_format: str | None) -> None:
    check_time_format(time_format)


def test_monthly_rows_on_the_30th_go_on_through_february(make_table: MakeTable) -> None:
    def edit(rows: list[list[str]]) -> None:
        for row, month in zip(rows[1:], ("2023-09-30", "2023-10-30", "2023-11-30", "2023-12-30"), strict=True):
            row[0] = month

    (series,) = read_series(make_table(4, edit=edit))
    times = series.times_after(4)
    assert [series.write_time(time) for time in times] == ["2024-01-30", "2024-02-29", "2024-03-30", "2024-04-30"]
    assert times.dtype == np.dtype("datetime64[us]")
