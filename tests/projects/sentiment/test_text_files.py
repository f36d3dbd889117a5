"""Only regular files are read, within stated limits and before memory is spent; .txt files are texts or lines."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from projects.sentiment.tables import Columns, Fault, Row, read_table
from projects.sentiment.text_folders import find_splits, read_classes, read_lines


def lines_of(path: Path) -> tuple[list[str], list[Fault]]:
    rows: list[Row] = []
    faults: list[Fault] = []
    read_lines(path, "x", rows, faults)
    return [row.text for row in rows], faults


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_lines_of_a_text_file_are_texts_and_empty_ones_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\n\n two \n")
    assert lines_of(path) == (["one", "two"], [Fault("empty text", f"{path} line 2")])


@pytest.mark.parametrize("content", ["one\rtwo", "one\ntwo\n", "one\r\ntwo"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lines_end_and_are_encoded_as_other_systems_do(content: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content.encode(encoding))
    assert lines_of(tmp_path / "a.txt") == (["one", "two"], [])


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "sparse line", "sparse file", "torn utf-16", "missing"])
def test_what_could_take_all_time_or_memory_is_refused_at_once(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "sparse line": lambda: sparse(path, 10**9),
        "sparse file": lambda: sparse(path, 10**10),
        "torn utf-16": lambda: path.write_bytes("text,label\n".encode("utf-16")[:-1]),
        "missing": lambda: None,
    }
    make[kind]()
    began = time.monotonic()
    with pytest.raises(UserError, match=name):
        _ = lines_of(path) if name == "a.txt" else read_table(path, Columns(None, None), [])
    assert time.monotonic() - began < 3


def test_a_row_of_many_short_lines_is_limited_too(tmp_path: Path) -> None:
    content = "text,label\nfine,1\n" + '"a\n",' * 4_000_000
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=r"too long: .*a\.csv, the row at line"):
        read_table(tmp_path / "a.csv", Columns(None, None), [])


def test_folders_of_text_files_are_classes(tmp_path: Path) -> None:
    for name in ("neg", "pos/2024", "unsup", "__MACOSX", ".git"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.txt").write_text(f"a {name} text\nof two lines")
    (tmp_path / "pos" / "1.TXT").write_text(" ")
    (tmp_path / "pos" / "._0.txt").write_bytes(b"\0")
    (tmp_path / "pos" / "notes.md").write_text("left out")
    (tmp_path / "notes.txt").write_text("no class")
    faults: list[Fault] = []
    notes: list[str] = []
    rows = read_classes(tmp_path, faults, notes)
    assert [(row.text, row.label) for row in rows] == [
        ("a neg text\nof two lines", "neg"),
        ("a pos/2024 text\nof two lines", "pos"),
    ]
    assert faults == [Fault("empty text", str(tmp_path / "pos" / "1.TXT"))]
    assert [note[:7] for note in notes] == ["1 files"]


def test_a_text_file_for_each_class_has_a_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "neg.TXT").write_text("bad\nworse\n")
    (tmp_path / "pos.txt").write_text("good\n")
    rows = read_classes(tmp_path, [], [])
    assert [(row.text, row.label) for row in rows] == [("bad", "neg"), ("worse", "neg"), ("good", "pos")]


def test_files_of_splits_are_found_by_name(tmp_path: Path) -> None:
    assert find_splits(tmp_path, (".csv",)) == {}
    (tmp_path / "test").mkdir()
    (tmp_path / "valid.csv").write_text("")
    with pytest.raises(UserError, match=r"no training texts: .*valid\.csv"):
        find_splits(tmp_path, (".csv", ".tsv"))
    for name in ("Train.csv", "notes.txt", "._test.csv"):
        (tmp_path / name).write_text("")
    names = {split: path.name for split, path in find_splits(tmp_path, (".csv", ".tsv")).items()}
    assert names == {"train": "Train.csv", "dev": "valid.csv", "test": "test"}
    (tmp_path / "dev.tsv").write_text("")
    with pytest.raises(UserError, match=r"valid\.csv"):
        find_splits(tmp_path, (".csv", ".tsv"))
