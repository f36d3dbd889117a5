"""Lines and records of text files: .csv, .tsv, .jsonl, .txt. Inference reads with this too; no torch.

A .csv follows RFC 4180, strictly; a .tsv knows no quotes, so a text holds neither tab nor line break; a line of .jsonl
is an object. Files are UTF-8, or UTF-16 and UTF-32 with a byte order mark; lines end with LF, CR LF or CR. Only regular
files and standard input are read, within the limits below, so that no file can take all time or memory.
"""

import codecs
import csv
import io
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import UserError

MAX_FILE_BYTES = 2 * 2**30
MAX_LINE_CHARACTERS = 16 * 2**20  # of a line, and of a row of a .csv whose texts have line breaks
STANDARD_INPUT = "standard input"
_SNIFFED_BYTES = 1 << 16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def numbered_lines(path: Path | None) -> Iterator[tuple[int, str]]:
    """Lines without their ends, counted from 1; bytes that are not UTF-8 stay as surrogates.

    path: None stands for standard input. Raises UserError for a file that cannot be read or exceeds a limit.
    """
    with _open_text(path) as file:
        for number, line in _lines(file, path):
            yield number, line.rstrip("\r\n")


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their first line, the header first; separated by commas, or by semicolons where the
    header has no comma. Raises UserError for a broken quote too, because nobody can say where its row ends."""
    csv.field_size_limit(MAX_LINE_CHARACTERS)
    since_row = 0

    def lines(file: io.TextIOWrapper) -> Iterator[str]:
        nonlocal since_row
        for number, line in _lines(file, path):
            since_row += len(line)
            if since_row > MAX_LINE_CHARACTERS:
                raise _too_long(path, f"the row at line {number}")
            yield line

    with _open_text(path, any_line_end=True) as file:
        header = re.sub(r'"[^"]*"', "", file.readline(MAX_LINE_CHARACTERS))
        file.seek(0)
        reader = csv.reader(lines(file), strict=True, delimiter=";" if ";" in header and "," not in header else ",")
        line = 1
        try:
            for record in reader:
                since_row = 0
                if record:
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            where = f"{path} line {line} (noticed in line {reader.line_num}: {error})"
            raise UserError("broken quote", where, "double the quotes inside of quotes, and close each one") from error


def tsv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their line, the header first; quotes are characters like others."""
    for line, text in numbered_lines(path):
        if text:
            yield line, text.split("\t")


def json_records(path: Path) -> Iterator[tuple[int, Any]]:
    """The keys of the first object as header, then all objects with the number of their line; None for no object."""
    header: list[str] | None = None
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError):
            record = None
        if header is None:
            if not isinstance(record, dict):
                raise UserError("not a JSON object", f"{path} line {line}", "give a file with one object a line")
            header = list(record)
            yield line, header
        yield line, record if isinstance(record, dict) else None


def read_whole(path: Path, max_characters: int) -> str:
    """A file's text, of which at most one character more than `max_characters` is read. Raises UserError as above."""
    with _open_text(path) as file:
        return file.read(max_characters + 1)


@contextmanager
def _open_text(path: Path | None, *, any_line_end: bool = False) -> Iterator[io.TextIOWrapper]:
    """Opens a regular file, or standard input, in its encoding. any_line_end: each CR ends a line, as csv reads it;
    otherwise it does in files without LF only. Raises UserError."""
    try:
        binary = _open_binary(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    buffered = io.BufferedReader(binary, _SNIFFED_BYTES)
    try:
        head = buffered.peek(_SNIFFED_BYTES)
        encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")
        only_carriage_returns = b"\r" in head and b"\n" not in head
        newline = "" if any_line_end else "\r" if only_carriage_returns else "\n"
        errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
        yield io.TextIOWrapper(buffered, encoding, errors, newline)
    except (OSError, UnicodeError) as error:  # in the caller's `with` too
        raise _unreadable(path, str(error)) from error
    finally:
        if path is not None:
            buffered.close()


def _open_binary(path: Path | None) -> io.FileIO:
    """The unbuffered bytes of a regular file or of standard input. A FIFO or a device is refused without waiting."""
    if path is None:
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ValueError("not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        os.close(descriptor)
        raise UserError("a file that is too large", path, f"split it; at most {MAX_FILE_BYTES >> 30} GB are read")
    return io.FileIO(descriptor)


def _lines(file: io.TextIOWrapper, path: Path | None) -> Iterator[tuple[int, str]]:
    """Lines with their ends, counted from 1. Raises UserError for one that is too long."""
    number, size = 0, 0
    while line := file.readline(MAX_LINE_CHARACTERS + 1):
        number += 1
        size += len(line)
        if len(line) > MAX_LINE_CHARACTERS:
            raise _too_long(path, f"line {number}")
        if size > MAX_FILE_BYTES:
            raise UserError("too much text", _name(path), f"split it; at most {MAX_FILE_BYTES >> 30} GB are read")
        yield number, line


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError where a key stands twice, of which json would silently keep the last."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _too_long(path: Path | None, what: str) -> UserError:
    """The refusal of a line or row."""
    where = f"{_name(path)}, {what}"
    return UserError("a line that is too long", where, f"divide it; at most {MAX_LINE_CHARACTERS:,} characters")


def _unreadable(path: Path | None, reason: str) -> UserError:
    """The refusal of a file."""
    return UserError("a file cannot be read", f"{_name(path)} ({reason.lower()})", "look at the file")


def _name(path: Path | None) -> str:
    """What messages call a file."""
    return STANDARD_INPUT if path is None else str(path)
