"""A table is read as it is written; whatever is wrong with it is said in one line, by line and column."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from projects.forecast.frequency import HOUR, Frequency
from projects.forecast.series import Fill, read_series
from tests.projects.forecast.conftest import MakeTable, waves, write

Rows = list[list[str]]


def replaced(line: int, column: int, cell: str) -> Callable[[Rows], None]:
    """Puts a cell into a line (1 is the header) and column (from 0) of the table."""

    def edit(rows: Rows) -> None:
        rows[line - 1][column] = cell

    return edit


def test_values_times_columns_and_frequency_are_those_of_the_file(make_table: MakeTable) -> None:
    series = read_series(make_table(50))
    assert series.columns == ("tide", "load")
    assert series.frequency == Frequency("microsecond", HOUR)
    assert series.time_column == "date"
    np.testing.assert_allclose(series.values, waves(50), atol=5e-5)
    assert series.times[0] == np.datetime64("2024-02-28T00:00")
    assert [series.shown(row) for row in (0, 24, 48)] == ["2024-02-28 00:00", "2024-02-29 00:00", "2024-03-01 00:00"]
    assert series.filled == 0


@pytest.mark.parametrize("comma", [";", "\t"])
def test_semicolons_and_tabs_separate_cells_too(comma: str, make_table: MakeTable) -> None:
    commas = make_table(20)
    other = write(commas.with_name("other.csv"), [row.split(",") for row in commas.read_text().splitlines()], comma)
    np.testing.assert_array_equal(read_series(other).values, read_series(commas).values)


def test_windows_line_ends_a_byte_order_mark_and_blank_last_lines_do_not_matter(make_table: MakeTable) -> None:
    plain = make_table(20)
    other = plain.with_name("windows.csv")
    other.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert read_series(other).columns == ("tide", "load")
    np.testing.assert_array_equal(read_series(other).values, read_series(plain).values)


def test_targets_come_in_the_order_asked_for(make_table: MakeTable) -> None:
    series = read_series(make_table(20), target=["load", "tide"])
    assert series.columns == ("load", "tide")
    np.testing.assert_allclose(series.values, waves(20)[:, ::-1], atol=5e-5)
    assert read_series(make_table(20), target=["load"]).values.shape == (20, 1)


def test_columns_without_numbers_are_left_out_and_named(make_table: MakeTable) -> None:
    def add_names(rows: Rows) -> None:
        for number, row in enumerate(rows):
            row.append("site" if number == 0 else "north")

    series = read_series(make_table(20, edit=add_names))
    assert series.columns == ("tide", "load")
    assert series.left_out == ("site",)


def test_the_time_column_may_stand_anywhere(make_table: MakeTable) -> None:
    path = make_table(20, edit=lambda rows: [row.append(row.pop(0)) for row in rows])
    assert read_series(path).time_column == "date"
    assert read_series(path, time_column="date").columns == ("tide", "load")


def test_other_ways_to_write_a_time_are_read_and_written_by_their_format(make_table: MakeTable) -> None:
    def german(rows: Rows) -> None:
        for row in rows[1:]:
            date, clock = row[0].split(" ")
            year, month, day = date.split("-")
            row[0] = f"{day}.{month}.{year} {clock}"

    path = make_table(40, edit=german)
    with pytest.raises(UserError, match="no column of timestamps"):
        read_series(path)
    series = read_series(path, time_format="%d.%m.%Y %H:%M")
    assert series.times[24] == np.datetime64("2024-02-29T00:00")
    assert series.written(series.frequency.after(series.times[-1], 10)[-1]) == "01.03.2024 01:00"


@pytest.mark.parametrize(
    ("zone", "offset"), [("Z", timedelta(0)), ("+00:00", timedelta(0)), ("-05:30", -timedelta(hours=5, minutes=30))]
)
def test_a_time_zone_that_all_rows_share_is_kept(zone: str, offset: timedelta, make_table: MakeTable) -> None:
    def add(rows: Rows) -> None:
        for row in rows[1:]:
            row[0] += zone

    series = read_series(make_table(20, edit=add))
    assert series.offset == offset
    assert series.shown(3) == f"2024-02-28 03:00{zone}"


def test_a_table_without_times_counts_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "counted.csv", [["a", "b"], *([str(k), str(k * k)] for k in range(10))])
    with pytest.raises(UserError, match="--time-column -"):
        read_series(path)
    series = read_series(path, time_column="-")
    assert series.columns == ("a", "b")
    assert [series.written(time) for time in series.frequency.after(series.times[-1], 2)] == ["10", "11"]


WRONG_CELLS = {
    "a decimal comma": (5, 1, '"1,5"', "line 5, column tide: 1,5"),
    "not a number": (7, 2, "1_000", "line 7, column load: 1_000"),
    "not a number ": (7, 2, "٣", "line 7, column load: ٣"),
    "not a number  ": (3, 1, "=1+1", "line 3, column tide: =1+1"),
    "not a number   ": (3, 1, "inf", "line 3, column tide: inf"),
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
        read_series(path)
    assert str(caught.value).startswith(f"{problem.strip()}: {path} {where}")
    assert "\n" not in str(caught.value)


def test_a_zone_that_changes_with_summer_time_is_named(make_table: MakeTable) -> None:
    def add(rows: Rows) -> None:
        for number, row in enumerate(rows[1:]):
            row[0] += "+01:00" if number < 10 else "+02:00"

    with pytest.raises(UserError, match=r"mixed time zones: .* line 12, column date"):
        read_series(make_table(20, edit=add))


def test_a_cell_of_any_length_is_named_in_one_short_line(make_table: MakeTable) -> None:
    with pytest.raises(UserError) as caught:
        read_series(make_table(20, edit=replaced(4, 1, "x" * 100_000)))
    assert "line 4, column tide: xxx" in str(caught.value)
    assert len(str(caught.value)) < 300


WRONG_FILES = {
    "cannot read the table": None,
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
        read_series(path)
    if problem.strip() != "too few rows":
        assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [["height"], ["tide", "tide"], ["date"]])
def test_a_target_that_cannot_be_is_named(target: list[str], make_table: MakeTable) -> None:
    with pytest.raises(UserError, match=target[0]):
        read_series(make_table(20), target=target)


def test_a_time_column_that_is_not_there_is_named_with_those_that_are(make_table: MakeTable) -> None:
    with pytest.raises(UserError, match=r"no such column: when .*date, tide, load"):
        read_series(make_table(20), time_column="when")


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
    series = read_series(path, fill=fill)
    assert len(series) == 20
    assert series.values[3:13, 0].tolist() == tides
    assert series.filled == 2 + 3 * 2
    assert series.shown(19) == "2024-02-28 19:00"
    assert (np.diff(series.times) == np.timedelta64(1, "h")).all()


@pytest.mark.parametrize(("fill", "line"), [("previous", 2), ("linear", 2), ("linear", 21)])
def test_a_value_that_the_rule_cannot_know_is_named(fill: Fill, line: int, make_table: MakeTable) -> None:
    with pytest.raises(UserError, match=f"--fill {fill} cannot know a value: .* line {line}, column load"):
        read_series(make_table(20, edit=replaced(line, 2, "")), fill=fill)


def test_a_slip_of_a_century_is_not_filled_with_a_million_rows(make_table: MakeTable) -> None:
    with pytest.raises(UserError, match="more rows are missing than there"):
        read_series(make_table(20, edit=replaced(21, 0, "2124-02-28 19:00")), fill="previous")
