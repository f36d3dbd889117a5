"""Texts and labels from files: .csv, .tsv, .jsonl, folders of .txt; what is wrong with a row is said with its line.

A .csv follows RFC 4180, strictly; a .tsv knows no quotes, so a text holds neither tab nor line break; a line of .jsonl
is an object. The first line (the first object's keys) names the columns. Inference reads with this too; no torch here.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import UserError

TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "tweet", "message", "body", "document", "phrase")
LABEL_COLUMNS = ("label", "sentiment", "class", "category", "target", "polarity", "rating", "stars")
SPLITS = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation"),
    "test": ("test", "testing"),
}
LEFT_OUT = ("unsup",)  # the unlabeled texts in the folder of the IMDB reviews
MAX_CHARACTERS, MAX_LABEL_CHARACTERS = 1_000_000, 100


class Row(NamedTuple):
    """A text with its label, and the file and line that it stands in."""

    text: str
    label: str | None
    where: str


class Fault(NamedTuple):
    """What is wrong with a row, and where it stands."""

    what: str
    where: str


class Columns(NamedTuple):
    """The names of the columns that texts and labels stand in; None is to be guessed, or stands for no labels."""

    text: str | None
    label: str | None


def read_table(path: Path, wanted: Columns, faults: list[Fault]) -> tuple[list[Row], Columns]:
    """The good rows of a file, and the columns that were read; bad rows are added to `faults`.

    Raises UserError for a file or header that cannot be used, and for a quote that swallows the rows after it.
    """
    kinds = {".csv": csv_records, ".tsv": tsv_records, ".jsonl": json_records}
    records = kinds[path.suffix.lower()](path)
    try:
        first = next(records, None)
        if first is None:
            raise UserError("an empty file", path, "give one whose first line names the columns")
        header = first[1]
        columns = choose_columns(path, header, wanted)
        rows = []
        for line, record in records:
            found = pick(record, header, columns)
            fault = found if isinstance(found, str) else fault_in(*found)
            if isinstance(found, str) or fault is not None:
                faults.append(Fault(str(fault), f"{path} line {line}"))
            else:
                rows.append(Row(found[0].strip(), found[1], f"{path} line {line}"))
    except OSError as error:
        raise UserError("a file cannot be read", f"{path} ({error.strerror})", "look at the file") from error
    return rows, columns


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their first line, the header first. Raises UserError for a broken quote."""
    csv.field_size_limit(2**31 - 1)  # long fields are dealt with by name
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.reader(file, strict=True, delimiter=";" if ";" in header and "," not in header else ",")
        line = 1
        try:
            for record in reader:
                if record:
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            where = f"{path} line {line} (noticed in line {reader.line_num}: {error})"
            raise UserError("broken quote", where, "double the quotes inside of quotes, and close each one") from error


def tsv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their line, the header first; quotes are signs like others."""
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
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if header is None:
            if not isinstance(record, dict):
                raise UserError("not a JSON object", f"{path} line {line}", "give a file with one object a line")
            header = list(record)
            yield line, header
        yield line, record if isinstance(record, dict) else None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines without their ends, counted from 1; bytes that are not UTF-8 stay as surrogates."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, text in enumerate(file, start=1):
            yield number, text.rstrip("\r\n")


def choose_columns(path: Path, header: Sequence[str], wanted: Columns) -> Columns:
    """The columns to read, as they are called in this file. Raises UserError where the texts' column is not clear."""
    names = [name.strip() for name in header]
    found = []
    for given, known in ((wanted.text, TEXT_COLUMNS), (wanted.label, LABEL_COLUMNS)):
        candidates = [given] if given is not None else list(known)
        lowered = [name.lower() for name in names]
        found.append(next((names[lowered.index(c.lower())] for c in candidates if c.lower() in lowered), None))
    columns, shown = Columns(*found), ", ".join(name[:30] for name in names[:12])
    for flag, given, name in (
        ("--text-column", wanted.text, columns.text),
        ("--label-column", wanted.label, columns.label),
    ):
        if given is not None and name is None:
            raise UserError("no such column", f"{flag} {given} in {path}", f"its columns are {shown}")
        if name is not None and names.count(name) > 1:
            raise UserError("two columns of one name", f"{name} in {path}", "rename one")
    if columns.text is None:
        todo = f"name one with --text-column; its first line has {shown}"
        raise UserError("no column is known to hold texts", path, todo)
    return columns


def pick(record: Any, header: Sequence[str], columns: Columns) -> tuple[str, str | None] | str:
    """Text and label of a row, or what is wrong with its form."""
    if isinstance(record, list):
        if len(record) != len(header):
            return f"{len(record)} columns instead of {len(header)}"
        record = dict(zip((name.strip() for name in header), record, strict=True))
    if not isinstance(record, dict):
        return "not a JSON object"
    values = []
    for name in columns:
        value = "" if name is None else record.get(name, "")
        if isinstance(value, bool | int) and name == columns.label:
            value = str(value).lower()
        if not isinstance(value, str):
            return f"{name} is not a text"
        values.append(value)
    return values[0], None if columns.label is None else values[1].strip()


def fault_in(text: str, label: str | None) -> str | None:
    """What is wrong with a text or a label; None where nothing is."""
    for name, value in (("text", text), ("label", label)):
        if value is None:
            continue
        if not value.strip():
            return f"empty {name}"
        if "\0" in value:
            return f"a NUL character in the {name}"
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            return f"{name} that is not UTF-8"
        limit = MAX_CHARACTERS if name == "text" else MAX_LABEL_CHARACTERS
        if len(value) > limit:
            return f"{name} of more than {limit:,} characters"
    return None


def read_lines(path: Path, label: str | None, faults: list[Fault], *, name: str | None = None) -> list[Row]:
    """A row for each line of a text file; `name`: what messages call it."""
    rows = []
    for line, text in numbered_lines(path):
        fault = fault_in(text, None)
        if fault is not None:
            faults.append(Fault(fault, f"{name or path} line {line}"))
        else:
            rows.append(Row(text.strip(), label, f"{name or path} line {line}"))
    return rows


def read_classes(root: Path, faults: list[Fault]) -> list[Row]:
    """The texts of ROOT/CLASS/*.txt, a text a file; where there are none, of ROOT/CLASS.txt, a text a line."""
    rows = []
    folders = [entry for entry in sorted(root.iterdir()) if entry.is_dir() and entry.name not in LEFT_OUT]
    for folder in folders:
        for path in sorted(folder.glob("*.txt")):
            text = path.read_text("utf-8-sig", errors="surrogateescape")
            fault = fault_in(text, None)
            if fault is not None:
                faults.append(Fault(fault, str(path)))
            else:
                rows.append(Row(text.strip(), folder.name, str(path)))
    if not rows:
        for path in sorted(root.glob("*.txt")):
            rows += read_lines(path, path.stem, faults)
    return rows


def find_splits(root: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files (or folders of classes) of a folder by the purposes train, dev and test; empty where it has no train.

    Raises UserError where two files claim one purpose.
    """
    found: dict[str, Path] = {}
    for purpose, names in SPLITS.items():
        tables = [p for p in sorted(root.iterdir()) if p.stem.lower() in names and p.suffix.lower() in suffixes]
        folders = [p for p in sorted(root.iterdir()) if p.name.lower() in names and p.is_dir()]
        for path in tables or folders:
            if purpose in found:
                raise UserError("two files for one purpose", f"{found[purpose]}, {path}", "leave one in the folder")
            found[purpose] = path
    return found if "train" in found else {}
