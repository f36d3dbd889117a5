"""Results are written as they come, and whatever ends the program, the file is valid or not there."""

import csv
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.records import FORMATS, RecordWriter, records_path
from tests.refusals import assert_refused, everything

COLUMNS: dict[str, type] = {"path": str, "n": int, "top.1.label": str, "top.1.share": float, "top.2.label": str}
COLUMNS |= {"top.2.share": float, "by.a": float}
RECORDS: list[dict[str, Any]] = [
    {
        "path": 'a, "b"\n',
        "n": 1,
        "top": [{"label": "ä", "share": 0.5}, {"label": "c", "share": 0.25}],
        "by": {"a": 1.5},
    },
    {"path": "caf\udce9", "n": 2, "top": [{"label": "c", "share": 0.125}]},
]
ROWS: list[list[Any]] = [
    ['a, "b"\n', 1, "ä", 0.5, "c", 0.25, 1.5],
    ["caf\\udce9", 2, "c", 0.125, None, None, None],
]


@pytest.fixture(params=FORMATS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of each format in a folder that is not there yet."""
    if request.param == "parquet" and importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    return tmp_path / "new" / f"r.{request.param}"


def rows_in(path: Path) -> list[list[Any]]:
    """A file's rows as lists of text, numbers and None."""
    if path.suffix == ".parquet":
        table = importlib.import_module("pyarrow.parquet").read_table(path)
        assert table.column_names == list(COLUMNS)
        return [list(row.values()) for row in table.to_pylist()]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert header == list(COLUMNS)
        kinds = COLUMNS.values()
        return [[kind(cell) if cell else None for kind, cell in zip(kinds, row, strict=True)] for row in rows]
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert records == RECORDS[: len(records)]
    return ROWS[: len(records)]


def write_and_raise(path: Path, error: BaseException) -> None:
    """Writes a record; then something goes wrong."""
    with RecordWriter(path, COLUMNS) as writer:
        writer.add(RECORDS[0])
        raise error


def test_a_file_of_each_format_holds_all_records(path: Path) -> None:
    with RecordWriter(path, COLUMNS) as writer:
        for record in RECORDS:
            writer.add(record)
    assert rows_in(path) == ROWS
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_record_can_be_read_before_the_next_one_comes(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"r.{ending}"
    with RecordWriter(path, COLUMNS) as writer:
        for num, record in enumerate(RECORDS, start=1):
            writer.add(record)
            assert rows_in(path) == ROWS[:num]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_done_before_a_stop_is_a_valid_file_and_is_said(
    error: type[BaseException], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error):
        write_and_raise(path, error())
    assert rows_in(path) == ROWS[:1]
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert (f"{path} holds the first 1 results" in capsys.readouterr().err) == (error is RuntimeError)


def test_a_refused_input_leaves_neither_file_nor_folder(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        write_and_raise(path, UserError("a broken image", "x", "replace it"))
    assert everything(tmp_path) == {}


def test_an_entry_without_a_column_and_nan_are_no_silent_losses(path: Path) -> None:
    with pytest.raises(ValueError, match=r"other|float"), RecordWriter(path, COLUMNS) as writer:
        writer.add({"path": "a", "other": float("nan")})
    assert not path.exists()


def test_the_ending_or_the_flag_gives_the_format(tmp_path: Path) -> None:
    assert records_path(None, None, "r") is None
    assert records_path(tmp_path / "out", None, "r") == tmp_path / "out" / "r.jsonl"
    assert records_path(tmp_path / "out", "csv", "r") == tmp_path / "out" / "r.csv"
    assert records_path(tmp_path / "mine.CSV", None, "r") == tmp_path / "mine.CSV"
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    ("output", "given", "named"),
    [
        (None, "csv", "--format csv"),
        ("there.csv", None, "there.csv"),
        ("folder", None, "folder"),
        ("new.csv", "jsonl", "--format jsonl"),
        ("nowhere/new.csv", None, "nowhere"),
        ("there.csv/x", None, "there.csv/x"),
        ("new.xlsx", None, ".csv, .jsonl, .parquet"),
    ],
)
def test_a_file_that_cannot_be_or_that_exists_is_refused(
    output: str | None, given: str | None, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("mine")
    Path("folder").mkdir()
    Path("folder/r.jsonl").write_text("mine")
    assert_refused(lambda: records_path(None if output is None else Path(output), given, "r"), named, tmp_path)


def test_parquet_without_its_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_refused(lambda: records_path(tmp_path / "r.parquet", None, "r"), "pyarrow", tmp_path)
