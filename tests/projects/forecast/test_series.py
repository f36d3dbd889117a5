"""A table is read as it is written; whatever is wrong with it is said in one line, by line and column."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from projects.forecast.frequency import HOUR, Frequency
from projects.forecast.series import Fill, Series, read_series
from tests.projects.forecast.conftest import MakeTable, waves, write

Rows = list[list[str]]


def read_one(path: Path, **settings: Any) -> Series:
    """The only series of a table."""
    (series,) = read_series(path, **settings)
    return series


def replaced(line: int, column: int, cell: str) -> Callable[[Rows], None]:
    """Puts a cell into a line (1 is the header) and column (from 0) of the table."""

    def edit(rows: Rows) -> None:
        rows[line - 1][column] = cell

    return edit


def test_values_times_columns_and_frequency_are_those_of_the_file(make_table: MakeTable) -> None:
    series = read_one(make_table(50))
    assert series.columns == ("tide", "load")
    assert series.frequency == Frequency("microsecond", HOUR)
    assert series.time_column == "date"
    np.testing.assert_allclose(series.values, waves(50), atol=5e-5)
    assert series.times[0] == np.datetime64("2024-02-28T00:00")
    assert [series.time_of(row) for row in (0, 24, 48)] == ["2024-02-28 00:00", "2024-02-29 00:00", "2024-03-01 00:00"]
    assert series.filled == 0


def test_targets_come_in_the_order_asked_for(make_table: MakeTable) -> None:
    series = read_one(make_table(20), target=["load", "tide"])
    assert series.columns == ("load", "tide")
    np.testing.assert_allclose(series.values, waves(20)[:, ::-1], atol=5e-5)
    assert read_one(make_table(20), target=["load"]).values.shape == (20, 1)


def test_columns_without_numbers_are_left_out_and_named(make_table: MakeTable) -> None:
    def add_names(rows: Rows) -> None:
        for number, row in enumerate(rows):
            row.append("site" if number == 0 else "north")

    series = read_one(make_table(20, edit=add_names))
    assert series.columns == ("tide", "load")
    assert series.left_out == ("site",)


def test_the_time_column_may_stand_anywhere(make_table: MakeTable) -> None:
    path = make_table(20, edit=lambda rows: [row.append(row.pop(0)) for row in rows])
    assert read_one(path).time_column == "date"
    assert read_one(path, time_column="date").columns == ("tide", "load")


def test_a_table_without_times_counts_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "counted.csv", [["a", "b"], *([str(k), str(k * k)] for k in range(10))])
    with pytest.raises(UserError, match="--time-column -"):
        read_one(path)
    series = read_one(path, time_column="-")
    assert series.columns == ("a", "b")
    assert [series.write_time(time) for time in series.times_after(2)] == ["10", "11"]


WRONG_CELLS = {
    "a decimal comma": (5, 1, '"1,5"', "line 5, column tide: 1,5"),
    "a decimal comma or a thousands separator": (5, 1, '"1,500"', "line 5, column tide: 1,500"),
    "thousands separators": (2, 1, '"1,000,234"', "line 2, column tide: 1,000,234"),
    "a per cent sign": (2, 2, "12 %", "line 2, column load: 12 %"),
    "infinity": (2, 1, "inf", "line 2, column tide: inf"),
    "not a number": (7, 2, "1_000", "line 7, column load: 1_000"),
    "not a number ": (7, 2, "٣", "line 7, column load: ٣"),
    "not a number  ": (3, 1, "=1+1", "line 3, column tide: =1+1"),
    "not a number   ": (2, 1, "x", "line 2, column tide: x"),
    "too large a number": (4, 2, "1e308", "line 4, column load: 1e308"),
    "a value is missing": (9, 1, "", "line 9, column tide: (empty)"),
    "a value is missing ": (9, 2, "NaN", "line 9, column load: NaN"),
    "not a timestamp": (6, 0, "yesterday", "line 6, column date: yesterday"),
    "not a timestamp ": (6, 0, "2024-02-30 04:00", "line 6, column date: 2024-02-30 04:00"),
    "mixed time zones": (8, 0, "2024-02-28 06:00+01:00", "line 8, column date: 2024-02-28 06:00+01:00"),
    "a timestamp stands twice": (8, 0, "2024-02-28 05:00", "line 8, column date: 2024-02-28 05:00"),
    "rows are not in the order of time": (8, 0, "2024-02-28 04:30", "line 8, column date: 2024-02-28 04:30"),
    "rows are not evenly spaced": (21, 0, "2024-02-28 19:20", "line 21, column date: 2024-02-28 19:20"),
    "rows are missing": (21, 0, "2024-02-28 22:00", "line 21, column date: 2024-02-28 22:00"),
}


@pytest.mark.parametrize("problem", WRONG_CELLS)
def test_a_wrong_cell_is_named_by_line_and_column(problem: str, make_table: MakeTable) -> None:
    line, column, cell, where = WRONG_CELLS[problem]
    path = make_table(20, edit=replaced(line, column, cell))
    with pytest.raises(UserError) as caught:
        read_one(path)
    assert str(caught.value).startswith(f"{problem.strip()}: {path} {where}")
    assert "\n" not in str(caught.value)


def test_a_cell_of_any_length_is_named_in_one_short_line(make_table: MakeTable) -> None:
    with pytest.raises(UserError) as caught:
        read_one(make_table(20, edit=replaced(4, 1, "x" * 100_000)))
    assert "line 4, column tide: xxx" in str(caught.value)
    assert len(str(caught.value)) < 300


WRONG_FILES = {
    "a file cannot be read": None,
    "no rows": b"date,a\n",
    "no rows ": b"",
    "not UTF-8": b"date,a\n2024-01-01,1\n2024-01-02,\xff\n",
    "a NUL in the table": b"date,a\n2024-01-01,1\n2024-01-02,\0\n",
    "a ragged row": b"date,a\n2024-01-01,1\n2024-01-02\n",
    "a ragged row ": b"date,a\n2024-01-01,1\n2024-01-02,1,2\n",
    "a ragged row  ": b"date,a\n2024-01-01,1\n\n2024-01-02,1\n",
    "a broken row": b'date,a\n2024-01-01,1\n2024-01-02,"1\n',
    "a broken row ": b"date,a\n2024-01-01,1\n2024-01-02," + b"1" * 200_000 + b"\n",
    "not a header": b"date,a,a\n2024-01-01,1,2\n",
    "not a header ": b"date,,b\n2024-01-01,1,2\n",
    "not a header  ": b"2.5,1.5\n2.0,1.0\n",
    "no column of numbers": b"date,name\n2024-01-01,x\n2024-01-02,y\n",
    "no column of timestamps": b"a,b\n1,2\n3,4\n",
    "too few rows": b"date,a\n2024-01-01,1\n2024-01-02,2\n",
    "a column without numbers": b"date,a,b\n2024-01-01,1,\n2024-01-02,2,\n2024-01-03,2,\n",
}


@pytest.mark.parametrize("problem", WRONG_FILES)
def test_a_file_that_is_no_such_table_is_named(problem: str, tmp_path: Path) -> None:
    path, content = tmp_path / "table.csv", WRONG_FILES[problem]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=problem.strip()) as caught:
        read_one(path)
    if problem.strip() != "too few rows":
        assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [["height"], ["tide", "tide"], ["date"]])
def test_a_target_that_cannot_be_is_named(target: list[str], make_table: MakeTable) -> None:
    with pytest.raises(UserError, match=target[0]):
        read_one(make_table(20), target=target)


def test_a_time_column_that_is_not_there_is_named_with_those_that_are(make_table: MakeTable) -> None:
    with pytest.raises(UserError, match=r"no such column: when .*date, tide, load"):
        read_one(make_table(20), time_column="when")


def with_holes(rows: Rows) -> None:
    """Lines 6 and 7 have no tide, and the rows of lines 11 to 13 are not there."""
    rows[5][1], rows[6][1] = "", "NaN"
    del rows[10:13]


@pytest.mark.parametrize(
    ("fill", "tides"),
    [("previous", [3, 3, 3, 6, 7, 8, 8, 8, 8, 12]), ("linear", [3, 4, 5, 6, 7, 8, 9, 10, 11, 12])],
)
def test_holes_are_filled_by_the_stated_rule_and_counted(fill: Fill, tides: list[float], make_table: MakeTable) -> None:
    def edit(rows: Rows) -> None:
        for number, row in enumerate(rows[1:]):
            row[1] = str(number)
        with_holes(rows)

    path = make_table(20, edit=edit)
    series = read_one(path, fill=fill)
    assert len(series) == 20
    assert series.values[3:13, 0].tolist() == tides
    assert series.filled == 2 + 3 * 2
    assert series.time_of(19) == "2024-02-28 19:00"
    assert (np.diff(series.times) == np.timedelta64(1, "h")).all()


@pytest.mark.parametrize(("fill", "line"), [("previous", 2), ("linear", 2), ("linear", 21)])
def test_a_value_that_the_rule_cannot_know_is_named(fill: Fill, line: int, make_table: MakeTable) -> None:
    with pytest.raises(UserError, match=f"--fill {fill} cannot know a value: .* line {line}, column load"):
        read_one(make_table(20, edit=replaced(line, 2, "")), fill=fill)


def test_a_slip_of_a_century_is_not_filled_with_a_million_rows(make_table: MakeTable) -> None:
    with pytest.raises(UserError, match="more rows are missing than there"):
        read_one(make_table(20, edit=replaced(21, 0, "2124-02-28 19:00")), fill="previous")


def long_format(sites: dict[str, list[int]]) -> Rows:
    """Rows of several series, day by day, as forecasting tools write them."""
    days = max(map(len, sites.values()))
    rows = [["unique_id", "ds", "y"]]
    for day in range(days):
        rows += [
            [name, f"2024-01-{day + 1:02}", str(values[day])] for name, values in sites.items() if day < len(values)
        ]
    return rows


def test_several_series_in_one_table_are_named_and_read_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "sites.csv", long_format({"north": [1, 2, 3, 4], "south": [10, 20, 30]}))
    with pytest.raises(UserError, match=r"column unique_id names 2; give --series-column unique_id"):
        read_series(path)
    north, south = read_series(path, series_column="unique_id")
    assert (north.name, south.name, north.columns) == ("north", "south", ("y",))
    assert north.values[:, 0].tolist() == [1, 2, 3, 4]
    assert south.values[:, 0].tolist() == [10, 20, 30]
    assert south.time_of(-1) == "2024-01-03"


def test_series_of_unlike_frequencies_are_named(tmp_path: Path) -> None:
    rows = long_format({"north": [1, 2, 3, 4, 5], "south": [1, 2, 3, 4, 5]})
    path = write(tmp_path / "sites.csv", [row for row in rows if row[0] != "south" or row[1][-1] in "135"])
    with pytest.raises(UserError, match="north 1 day, south 2 days apart"):
        read_series(path, series_column="unique_id")


@pytest.mark.parametrize(
    ("header", "target", "columns"),
    [
        (["date", "all", "b"], ["all"], ("all",)),
        (["date", "a", "b"], ["all"], ("a", "b")),
        (["date", "x,y", "b"], ["x,y"], ("x,y",)),
    ],
)
def test_any_name_of_a_column_can_be_a_target(
    header: list[str], target: list[str], columns: tuple[str, ...], tmp_path: Path
) -> None:
    rows = [[f"2024-01-0{day}", str(day), "0"] for day in range(1, 6)]
    path = write(tmp_path / "table.csv", [header, *rows], ";")
    assert read_one(path, target=target).columns == columns
