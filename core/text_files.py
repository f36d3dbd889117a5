"""Text files read line by line: regular files only, within limits, in the encoding that they state. Loads no torch.

Files are UTF-8, or UTF-16 and UTF-32 with a byte order mark; lines end with LF, CR LF or CR. A .csv follows RFC 4180,
strictly. The limits hold before memory is spent, so that no file can take all time or memory.
"""

import codecs
import csv
import errno
import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from core.errors import UserError

MAX_FILE_BYTES = 2 << 30
MAX_LINE_CHARACTERS = 16 << 20  # of a line, and of a row of a .csv whose cells have line breaks
_SNIFFED_BYTES = 1 << 16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def open_regular(path: Path, max_bytes: int = MAX_FILE_BYTES) -> BinaryIO:
    """Opens a regular file for reading, unbuffered, following links.

    Raises OSError for anything else, as a FIFO or a device could block for ever or never end, and for a larger file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"more than {max_bytes >> 20:,} MB", str(path))
        return io.FileIO(descriptor)
    except OSError:
        os.close(descriptor)
        raise


def numbered_lines(path: Path | None) -> Iterator[tuple[int, str]]:
    """Lines without their ends, counted from 1; bytes that are not UTF-8 stay as surrogates.

    path: None stands for standard input. Raises UserError for a file that cannot be read or exceeds a limit.
    """
    with _open_text(path) as file:
        for number, line in _lines(file, path):
            yield number, line.rstrip("\r\n")


def csv_records(
    path: Path,
    *,
    delimiters: str = ",;",
    max_file_bytes: int = MAX_FILE_BYTES,
    max_row_characters: int = MAX_LINE_CHARACTERS,
    max_cell_characters: int = MAX_LINE_CHARACTERS,
) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their first line, the header first; empty lines are left out.

    delimiters: the one that stands most often in the header, outside of quotes, separates cells; of equals the first.
    Raises UserError for a file that cannot be read or exceeds a limit, and for a broken quote, because nobody can say
    where its row ends.
    """
    since_row = 0

    def lines(file: io.TextIOWrapper) -> Iterator[str]:
        nonlocal since_row
        for number, line in _lines(file, path, max_row_characters):
            since_row += len(line)
            if since_row > max_row_characters:
                raise _too_long(path, f"the row at line {number}", max_row_characters)
            yield line

    with _open_text(path, any_line_end=True, max_bytes=max_file_bytes) as file:
        try:
            header = re.sub(r'"[^"]*"', "", file.readline(max_row_characters))
            file.seek(0)
        except UnicodeError as error:
            raise _unreadable(path, str(error)) from error
        csv.field_size_limit(max_cell_characters)
        reader = csv.reader(lines(file), strict=True, delimiter=max(delimiters, key=header.count))
        line = 1
        try:
            for record in reader:
                since_row = 0
                if record:
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            where = f"{path} line {line} (noticed in line {reader.line_num}: {error})"
            raise UserError("a broken row", where, "double the quotes inside of quotes, and close each one") from error


def read_whole(path: Path, max_characters: int) -> str:
    """A file's text, of which at most one character more than `max_characters` is read. Raises UserError as above."""
    with _open_text(path) as file:
        try:
            return file.read(max_characters + 1)
        except UnicodeError as error:
            raise _unreadable(path, str(error)) from error


@contextmanager
def _open_text(
    path: Path | None, *, any_line_end: bool = False, max_bytes: int = MAX_FILE_BYTES
) -> Iterator[io.TextIOWrapper]:
    """Opens a regular file, or standard input, in its encoding. any_line_end: each CR ends a line, as csv reads it;
    otherwise it does in files without LF only. Raises UserError."""
    try:
        binary = io.FileIO(sys.stdin.fileno(), closefd=False) if path is None else open_regular(path, max_bytes)
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    buffered = io.BufferedReader(binary, _SNIFFED_BYTES)  # type: ignore[type-var, unused-ignore]
    try:
        head = buffered.peek(_SNIFFED_BYTES)
        encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")
        only_carriage_returns = b"\r" in head and b"\n" not in head
        newline = "" if any_line_end else "\r" if only_carriage_returns else "\n"
        errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
        yield io.TextIOWrapper(buffered, encoding, errors, newline)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    finally:
        if path is not None:
            buffered.close()


def _lines(
    file: io.TextIOWrapper, path: Path | None, max_characters: int = MAX_LINE_CHARACTERS
) -> Iterator[tuple[int, str]]:
    """Lines with their ends, counted from 1. Raises UserError for one that is too long or in another encoding."""
    number, size = 0, 0
    while True:
        number += 1
        try:
            line = file.readline(max_characters + 1)
        except UnicodeError as error:
            raise _unreadable(path, f"line {number}: {error}") from error
        if not line:
            return
        size += len(line)
        if len(line) > max_characters:
            raise _too_long(path, f"line {number}", max_characters)
        if size > MAX_FILE_BYTES:
            raise UserError("too much text", _name(path), f"split it; at most {MAX_FILE_BYTES >> 30} GB are read")
        yield number, line


def _too_long(path: Path | None, what: str, max_characters: int) -> UserError:
    """The refusal of a line or row."""
    where = f"{_name(path)}, {what}"
    return UserError("a line that is too long", where, f"divide it; at most {max_characters:,} characters are read")


def _unreadable(path: Path | None, reason: str) -> UserError:
    """The refusal of a file."""
    return UserError("a file cannot be read", f"{_name(path)} ({reason[:1].lower()}{reason[1:]})", "look at the file")


def _name(path: Path | None) -> str:
    """What messages call a file."""
    return "standard input" if path is None else str(path)
