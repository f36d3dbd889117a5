"""What infer is given: texts, files and folders of them, patterns, standard input. No torch."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.patterns import expanded
from projects.sentiment.config import TABLES
from projects.sentiment.tables import Columns, Fault, Row, add_row, read_table
from projects.sentiment.text_folders import read_lines, read_text, text_files_below


def read_input(given: str, wanted: Columns, classes: Sequence[str], rows: list[Row], faults: list[Fault]) -> None:
    """Adds the texts that one argument stands for: itself, or those of a file or folder. Raises UserError."""
    if any("\ud800" <= character <= "\udfff" for character in given):  # on a terminal of ASCII
        given = os.fsencode(given).decode("utf-8", "surrogateescape")
    path = Path(given)
    kind = _kind_of(path)
    if given == "-":
        read_lines(None, None, rows, faults)
    elif kind == "folder":
        paths, _ = text_files_below(path)
        if not paths:
            raise UserError("a folder without .txt files", path, "name its tables themselves")
        labeled = any(each.parent.name in classes for each in paths)
        for each in paths:
            read_text(each, each.parent.name if labeled else None, rows, faults)
    elif kind == "file" and path.suffix.lower() in TABLES:
        rows += read_table(path, wanted, faults)[0]
    elif kind == "file":
        read_lines(path, None, rows, faults)
    elif path.suffix.lower() in (*TABLES, ".txt") and not any(map(str.isspace, given)):
        if not glob.has_magic(given):
            raise UserError("no such file", given, "give a text, or a file")
        for each in expanded([given]):
            read_input(str(each), wanted, classes, rows, faults)
    else:
        add_row((given, None), "an argument", rows, faults)


def _kind_of(path: Path) -> str | None:
    """Whether there is a file or a folder at a path; None for a text, which may be too long for a path."""
    try:
        return "folder" if path.is_dir() else "file" if path.exists() else None
    except (OSError, ValueError):
        return None
