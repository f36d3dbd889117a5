"""Text files are read in the encoding that they state, within limits, and only where they are regular files."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from core.text_files import csv_records, numbered_lines, open_regular, read_whole

TEXT = "name,größe\na,1\nb,2\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_make_no_difference(encoding: str, line_end: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.replace("\n", line_end).encode(encoding))
    assert list(numbered_lines(path)) == [(1, "name,größe"), (2, "a,1"), (3, "b,2")]
    assert list(csv_records(path)) == [(1, ["name", "größe"]), (2, ["a", "1"]), (3, ["b", "2"])]
    assert read_whole(path, 100).split() == TEXT.split()


def test_the_separator_that_stands_most_often_in_the_header_outside_of_quotes_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"a,b,c";d\n1;"2\n3"\n\n4;5\n')
    assert list(csv_records(path)) == [(1, ["a,b,c", "d"]), (2, ["1", "2\n3"]), (5, ["4", "5"])]


def test_bytes_that_are_no_utf_8_are_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nb\xffd\n")
    assert list(numbered_lines(path)) == [(1, "good"), (2, "b\udcffd")]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "not a regular file"),
    "a folder": (Path.mkdir, "not a regular file"),
    "not there": (lambda path: None, "no such file"),
    "too long a line": (lambda path: path.write_text("a" * 2_000), "line 1"),
    "too long a row": (lambda path: path.write_text('a\n"' + "x\n" * 2_000), "line"),
    "too large": (lambda path: path.write_bytes(bytes(2_000_000)), "more than 1 MB"),
    "an open quote": (lambda path: path.write_text('a\n"b\n'), "line 2"),
    "half of a character": (lambda path: path.write_bytes("ab".encode("utf-16")[:-1]), "utf-16"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_named_at_once(name: str, tmp_path: Path) -> None:
    make, words = BROKEN[name]
    path = tmp_path / "a.csv"
    make(path)
    started = time.perf_counter()
    with pytest.raises(UserError) as caught:
        list(csv_records(path, max_file_bytes=1 << 20, max_row_characters=1_000))
    assert time.perf_counter() - started < 2
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_link_to_a_regular_file_is_followed_and_a_device_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    (tmp_path / "link").symlink_to("a")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(Path("/dev/zero"))
