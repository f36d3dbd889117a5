"""What infer is given: texts, files and folders of them, patterns, standard input; read as they are used. No torch."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import UserError
from core.patterns import expanded
from core.text_files import numbered_lines, read_whole
from projects.sentiment.config import TABLES
from projects.sentiment.tables import MAX_TEXT_CHARACTERS, Columns, Fault, Row, as_entry, table_entries
from projects.sentiment.text_folders import text_files_below

STANDARD_INPUT = "-"


def entries_of(given: str, wanted: Columns, classes: Sequence[str]) -> Iterator[Row | Fault]:
    """The texts that one argument stands for: itself, or those of a file or folder. Raises UserError when it comes to
    something that cannot be read."""
    if any("\ud800" <= character <= "\udfff" for character in given):  # on a terminal of ASCII
        given = os.fsencode(given).decode("utf-8", "surrogateescape")
    path = Path(given)
    kind = _kind_of(path)
    if given == STANDARD_INPUT:
        yield from _lines(None)
    elif kind == "folder":
        yield from _folder(path, classes)
    elif kind == "file" and path.suffix.lower() in TABLES:
        yield from table_entries(path, wanted)[1]
    elif kind == "file":
        yield from _lines(path)
    elif path.suffix.lower() in (*TABLES, ".txt") and not any(map(str.isspace, given)):
        if not glob.has_magic(given):
            raise UserError("no such file", given, "give a text, or a file")
        for each in expanded([given]):
            yield from entries_of(str(each), wanted, classes)
    else:
        yield as_entry((given, None), "an argument")


def _lines(path: Path | None) -> Iterator[Row | Fault]:
    """The lines of a file or of standard input, a text each."""
    for line, text in numbered_lines(path):
        yield as_entry((text, None), f"{path or 'standard input'} line {line}")


def _folder(folder: Path, classes: Sequence[str]) -> Iterator[Row | Fault]:
    """The .txt files of a folder, a text each, with the folder they lie in as label where one is named like a class."""
    paths, _ = text_files_below(folder)
    if not paths:
        raise UserError("a folder without .txt files", folder, "name its tables themselves")
    labeled = any(each.parent.name in classes for each in paths)
    for each in paths:
        yield as_entry((read_whole(each, MAX_TEXT_CHARACTERS), each.parent.name if labeled else None), str(each))


def _kind_of(path: Path) -> str | None:
    """Whether there is a file or a folder at a path; None for a text, which may be too long for a path."""
    try:
        return "folder" if path.is_dir() else "file" if path.exists() else None
    except (OSError, ValueError):
        return None
