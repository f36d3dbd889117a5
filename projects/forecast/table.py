"""The cells of a CSV file, read strictly: what is wrong is named by line and column.

A cell is a number, a timestamp, or missing; nothing is guessed about decimal commas, thousands or dates. No torch.
"""

import csv
import io
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from projects.forecast.frequency import Times

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
DECIMAL_COMMA = re.compile(r"[+-]?[0-9.]*,[0-9]+", re.ASCII)
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
LARGEST = 1e18  # squares of larger numbers leave float32
MAX_CELL_CHARACTERS = 131_072


class Table(NamedTuple):
    """The cells of a CSV file. lines: for each row, its line in the file."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def where(self, row: int, column: int) -> str:
        """What a message calls a cell."""
        cell = self.rows[row][column]
        shown = cell if len(cell) <= 40 else f"{cell[:39]}…"
        return f"{self.path} line {self.lines[row]}, column {self.header[column]}: {shown or '(empty)'}"


def read_table(path: Path) -> Table:
    """Header and rows of a file with commas, semicolons or tabs between cells. Raises UserError by line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise UserError("cannot read the table", f"{path} ({reason})", "give a CSV file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError("not UTF-8", f"{path} line {line}", "save the table as UTF-8") from error
    if "\0" in text:
        raise UserError(
            "a NUL in the table", f"{path} line {text.count(chr(10), 0, text.index(chr(0))) + 1}", "remove it"
        )
    first = text.partition("\n")[0]
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            rows.append([cell.strip() for cell in row])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError("a broken row", f"{path} line {reader.line_num} ({error})", "look at its quotes") from error
    while rows and not any(rows[-1]):
        rows.pop()
    if len(rows) < 2:
        raise UserError("no rows", path, "give a table with a header and rows")
    header = rows[0]
    for column, name in enumerate(header):
        if not name or header.index(name) != column or NUMBER.fullmatch(name):
            problem = f"{path} line {lines[0]}, column {column + 1}: {name or '(empty)'}"
            raise UserError("not a header", problem, "give every column a name of its own in the first line")
    for row, line in zip(rows, lines, strict=False):
        if len(row) != len(header):
            where = f"{path} line {line}: {len(row)} cells, the header has {len(header)}"
            raise UserError("a ragged row", where, "give every row a cell for each column")
    return Table(path, header, rows[1:], lines[1 : len(rows)])


def column_of(table: Table, name: str) -> int:
    """A column by name."""
    if name not in table.header:
        raise UserError("no such column", f"{name} in {table.path}", f"it has {', '.join(table.header)}")
    return table.header.index(name)


def numbers(table: Table, column: int) -> NDArray[np.float64]:
    """A column's numbers, NaN where one is missing; float64 [rows]."""
    found = np.empty(len(table.rows))
    for number, row in enumerate(table.rows):
        cell = row[column]
        if NUMBER.fullmatch(cell):
            found[number] = float(cell)
            if not abs(found[number]) <= LARGEST:
                raise UserError("too large a number", table.where(number, column), f"give at most {LARGEST:g}")
        elif cell.lower() in MISSING:
            found[number] = np.nan
        elif DECIMAL_COMMA.fullmatch(cell):
            raise UserError("a decimal comma", table.where(number, column), "write numbers with a point")
        else:
            raise UserError("not a number", table.where(number, column), "write plain digits with a point")
    if np.isnan(found).all():
        raise UserError(
            "a column without numbers", f"{table.header[column]} in {table.path}", "leave it out of --target"
        )
    return found


def timestamps(table: Table, column: int, time_format: str | None) -> tuple[Times, timedelta | None]:
    """A column's times as written, and their common offset from UTC."""
    found = []
    offset = None
    for number, row in enumerate(table.rows):
        moment = moment_of(row[column], time_format)
        if moment is None:
            todo = f"write it as {time_format}" if time_format else "write ISO 8601, or give --time-format in training"
            raise UserError("not a timestamp", table.where(number, column), todo)
        if number == 0:
            offset = moment.utcoffset()
        elif moment.utcoffset() != offset:
            raise UserError("mixed time zones", table.where(number, column), "write all timestamps in one zone")
        found.append(moment.replace(tzinfo=None))
    return np.array(found, dtype="datetime64[us]"), offset


def moment_of(cell: str, time_format: str | None) -> datetime | None:
    """A cell as a time; None where it is none."""
    try:
        return datetime.strptime(cell, time_format) if time_format else datetime.fromisoformat(cell)
    except ValueError:
        return None
