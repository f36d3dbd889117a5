"""A table is read strictly, in any usual encoding, and no file takes all time or memory."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from projects.forecast import table as table_module
from projects.forecast.table import parse_numbers, read_table

ROWS = "date,a,b\n2024-01-01,1,2\n2024-01-02,3,4\n"


@pytest.mark.parametrize(
    "content",
    [
        ROWS.encode(),
        ROWS.encode("utf-8-sig"),
        ROWS.encode("utf-16"),
        b"\xfe\xff" + ROWS.encode("utf-16-be"),
        ROWS.replace("\n", "\r\n").encode() + b"\r\n\r\n",
        ROWS.replace("\n", "\r").encode(),
        ROWS.replace(",", ";").encode(),
        ROWS.replace(",", "\t").encode(),
    ],
)
def test_usual_encodings_line_ends_and_separators_are_the_same_table(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.TXT"
    path.write_bytes(content)
    table = read_table(path)
    assert (table.header, table.rows, table.lines) == (
        ["date", "a", "b"],
        [["2024-01-01", "1", "2"], ["2024-01-02", "3", "4"]],
        [2, 3],
    )


def test_commas_and_line_breaks_inside_of_quotes_separate_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('date;"a, b, c, d";"e\nf"\n2024-01-01;1;"x\ny"\n2024-01-02;3;4\n')
    table = read_table(path)
    assert table.header == ["date", "a, b, c, d", "e\nf"]
    assert table.lines == [3, 5]


@pytest.mark.parametrize(
    ("cells", "num_wrong", "is_numeric"),
    [
        (["inf", "1", "2", "3"], 1, True),
        (["12 %", "1", "2", "3"], 1, True),
        (["1,000,234", "5", "6"], 1, True),
        (["1,5", "2,5", "3,5"], 3, True),
        (["x", "1", "2", "3"], 1, True),
        (["1", "x", "y", "z"], 3, False),
        (["", "NaN", "7"], 0, True),
        (["", "x", ""], 1, False),
        (["", "", ""], 0, True),
    ],
)
def test_all_cells_decide_whether_a_column_holds_numbers(
    cells: list[str], num_wrong: int, is_numeric: bool, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("date;a\n" + "".join(f"2024-01-{day + 1:02};{cell}\n" for day, cell in enumerate(cells)))
    numbers = parse_numbers(read_table(path), 1)
    assert (len(numbers.wrong), numbers.is_numeric) == (num_wrong, is_numeric)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def huge_line(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 << 20)


def too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(table_module.MAX_FILE_BYTES + 1)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (pipe, "not a regular file"),
    "a folder": (Path.mkdir, "not a regular file"),
    "a sparse line": (huge_line, "line 1"),
    "a sparse file": (too_large, "more than 256 MB"),
    "a line of commas": (lambda path: path.write_bytes(b"," * (32 << 20)), "line 1"),
    "100,000 columns": (lambda path: path.write_text(",".join(f"c{k}" for k in range(100_000)) + "\n1\n"), "100,000"),
    "a cell that is too long": (lambda path: path.write_text(f"date,a\n2024-01-01,{'1' * 200_000}\n"), "line 2"),
    "endless quotes": (lambda path: path.write_text("date,a\n" + '"' + "x\n" * 100_000), "line 2"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_soon(name: str, tmp_path: Path) -> None:
    make, named = HOSTILE[name]
    path = tmp_path / "table.csv"
    make(path)
    started = time.perf_counter()
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert time.perf_counter() - started < 5
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["1" * 64_000, "1" * 64_000 + "x", "1," * 32_000, "." * 64_000, "1,000" * 10_000])
def test_a_long_cell_is_no_number_and_takes_no_time(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f'date,a\n2024-01-01,1\n2024-01-02,"{cell}"\n2024-01-03,2\n')
    started = time.perf_counter()
    assert parse_numbers(read_table(path), 1).wrong == [1]
    assert time.perf_counter() - started < 1
