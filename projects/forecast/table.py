"""The cells of a CSV file, read strictly: what is wrong is named by line and column. No torch.

A cell is a number, a timestamp, or missing; nothing is guessed about decimal commas, thousands or dates.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.text_files import csv_records
from projects.forecast.spacing import Times
from projects.forecast.timestamps import TimeForm, find_form, parse_time, with_its_zone

MAX_FILE_BYTES = 256 << 20
MAX_ROW_CHARACTERS = 2 << 20
MAX_CELL_CHARACTERS = 131_072
MAX_COLUMNS = 10_000
LARGEST = 1e18  # squares of larger numbers leave float32
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_MAX_NUMBER_CHARACTERS = 400
_LINE_END = re.compile(r"\r\n|\r|\n")
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
# Cells that stand for numbers but are not read as such: what they are called, and what to do.
_ALMOST_NUMBERS = (
    ("infinity", re.compile(r"[+-]?inf(inity)?", re.ASCII | re.IGNORECASE), "leave the cell empty, or write a number"),
    ("a per cent sign", re.compile(r"[+-]?[0-9.,]+ ?%", re.ASCII), "write plain numbers"),
    (
        "thousands separators",
        re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3}){2,}(\.[0-9]*)?|[+-]?[0-9]{1,3}(,[0-9]{3})+\.[0-9]*", re.ASCII),
        "write 1234567.8 in place of 1,234,567.8",
    ),
    (
        "a decimal comma or a thousands separator",
        re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}", re.ASCII),
        "write numbers with a point, and nothing between thousands",
    ),
    ("a decimal comma", re.compile(r"[+-]?[0-9.]*,[0-9]+", re.ASCII), "write numbers with a point"),
)


class Table(NamedTuple):
    """The cells of a CSV file. lines: for each row, the line of the file that it begins in."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def where(self, row: int, column: int) -> str:
        """What a message calls a cell."""
        cell = self.rows[row][column]
        shown = cell if len(cell) <= 40 else f"{cell[:39]}…"
        return f"{self.path} line {self.lines[row]}, column {self.header[column]}: {shown or '(empty)'}"

    def subset(self, rows: Sequence[int]) -> "Table":
        """Some of its rows."""
        return self._replace(rows=[self.rows[row] for row in rows], lines=[self.lines[row] for row in rows])


def read_table(path: Path) -> Table:
    """Header and rows of a file with commas, semicolons or tabs between cells. Raises UserError by line."""
    rows: list[list[str]] = []
    lines: list[int] = []
    records = csv_records(
        path,
        delimiters=",;\t",
        max_file_bytes=MAX_FILE_BYTES,
        max_row_characters=MAX_ROW_CHARACTERS,
        max_cell_characters=MAX_CELL_CHARACTERS,
    )
    num_columns, expected_line = 0, 1
    for line, record in records:
        cells = [cell.strip() for cell in record]
        _check_characters("".join(cells), f"{path} line {line}")
        if not rows:
            _check_header(cells, f"{path} line {line}")
            num_columns = len(cells)
        elif len(cells) != num_columns and any(cells):
            where = f"{path} line {line}: {len(cells)} cells, the header has {num_columns}"
            raise UserError("a ragged row", where, "give every row a cell for each column")
        if rows and any(cells) and line > expected_line:
            where = f"{path} line {expected_line}: an empty line"
            raise UserError("a ragged row", where, "give every row a cell for each column")
        if any(cells):
            rows.append(cells)
            lines.append(line)
            expected_line = line + 1 + len(_LINE_END.findall(",".join(record)))
    if len(rows) < 2:
        raise UserError("no rows", path, "give a table with a header and rows")
    return Table(path, rows[0], rows[1:], lines[1:])


def _check_characters(text: str, where: str) -> None:
    """Raises UserError for what is no text."""
    if "\0" in text:
        raise UserError("a NUL in the table", where, "remove it")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError("not UTF-8", where, "save the table as UTF-8")


def _check_header(names: Sequence[str], where: str) -> None:
    """Raises UserError unless every column has a name of its own."""
    if len(names) > MAX_COLUMNS:
        raise UserError("too many columns", f"{where}: {len(names):,}", f"give at most {MAX_COLUMNS:,}")
    seen: set[str] = set()
    for column, name in enumerate(names):
        if not name or name in seen or _NUMBER.fullmatch(name):
            todo = "give every column a name of its own in the first line"
            raise UserError("not a header", f"{where}, column {column + 1}: {name or '(empty)'}", todo)
        seen.add(name)


def column_of(table: Table, name: str) -> int:
    """A column by name."""
    if name not in table.header:
        names = ", ".join(table.header[:20]) + (", …" if len(table.header) > 20 else "")
        raise UserError("no such column", f"{name} in {table.path}", f"it has {names}")
    return table.header.index(name)


def is_number(cell: str) -> bool:
    """Whether a cell is a number in plain notation."""
    return len(cell) <= _MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(cell) is not None


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value."""
    return cell.lower() in _MISSING


class Numbers(NamedTuple):
    """A column's cells as numbers. values: float64 [rows], NaN where a cell is missing or wrong. wrong: rows whose
    cells are neither a number nor missing. num_numbers: cells that are numbers, or almost, such as 12 %."""

    values: NDArray[np.float64]
    wrong: list[int]
    num_numbers: int

    @property
    def is_numeric(self) -> bool:
        """Whether most of the column's known cells are numbers; a column without known cells counts as numeric."""
        num_missing = int(np.isnan(self.values).sum()) - len(self.wrong)
        return 2 * self.num_numbers > len(self.values) - num_missing or num_missing == len(self.values)


def parse_numbers(table: Table, column: int) -> Numbers:
    """The numbers of a column. Raises nothing; `checked_numbers` does."""
    values = np.full(len(table.rows), np.nan)
    wrong, num_numbers = [], 0
    for number, row in enumerate(table.rows):
        cell = row[column]
        if is_number(cell):
            values[number] = float(cell)
            num_numbers += 1
        elif not is_missing(cell):
            wrong.append(number)
            num_numbers += _almost_number(cell) is not None
    return Numbers(values, wrong, num_numbers)


def checked_numbers(table: Table, column: int, numbers: Numbers) -> NDArray[np.float64]:
    """The values of a column that is to be used. Raises UserError for the first cell that is wrong or too large, and
    for a column without numbers."""
    large = np.flatnonzero(np.abs(numbers.values) > LARGEST)
    first = min([*numbers.wrong[:1], *large[:1].tolist()], default=None)
    if first is not None:
        cell = table.rows[first][column]
        if is_number(cell):
            raise UserError("too large a number", table.where(first, column), f"give at most {LARGEST:g}")
        what, todo = _almost_number(cell) or ("not a number", "write plain digits with a point")
        raise UserError(what, table.where(first, column), todo)
    if np.isnan(numbers.values).all():
        where = f"{table.header[column]} in {table.path}"
        raise UserError("a column without numbers", where, "leave it out of --target")
    return numbers.values


def _almost_number(cell: str) -> tuple[str, str] | None:
    """What is wrong with a cell that stands for a number, and what to do; None where it does not."""
    if len(cell) <= _MAX_NUMBER_CHARACTERS:
        for what, pattern, todo in _ALMOST_NUMBERS:
            if pattern.fullmatch(cell):
                return what, todo
    return None


def parse_times(table: Table, column: int, time_format: str | None) -> tuple[Times, TimeForm]:
    """A column's times as written, datetime64[us] [rows], and their form. Raises UserError, naming the first cell that
    is no time, is in another zone, or is in a form that cannot be written again."""
    literal, zone = with_its_zone(table.rows[0][column], time_format)
    moments = []
    offset: timedelta | None = None
    for number, row in enumerate(table.rows):
        moment = parse_time(row[column], literal)
        if moment is None:
            if zone and parse_time(row[column], with_its_zone(row[column], time_format)[0]) is not None:
                raise UserError("mixed time zones", table.where(number, column), "write all timestamps in one zone")
            todo = f"write it as {time_format}" if time_format else "write ISO 8601, or give --time-format in training"
            raise UserError("not a timestamp", table.where(number, column), todo)
        if number == 0:
            offset = moment.utcoffset()
        elif moment.utcoffset() != offset:
            raise UserError("mixed time zones", table.where(number, column), "write all timestamps in one zone")
        moments.append(moment.replace(tzinfo=None))
    form = find_form([row[column] for row in table.rows], literal)
    if form is None:
        todo = "write plain ISO 8601, or give --time-format in training"
        raise UserError("a form of timestamps that cannot be continued", table.where(0, column), todo)
    return np.array(moments, dtype="datetime64[us]"), form
