"""Texts and labels from tables: which columns they stand in, and what is wrong with a row.

A .csv follows RFC 4180, strictly; a .tsv knows no quotes, so a text holds neither tab nor line break; a line of .jsonl
is an object. The first line (the first object's keys) names the columns. Inference reads with this too; no torch.
"""

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import UserError
from core.text_files import csv_records, numbered_lines

MAX_TEXT_CHARACTERS, MAX_LABEL_CHARACTERS = 1_000_000, 100
_TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "tweet", "message", "body", "document", "phrase")
_LABEL_COLUMNS = ("label", "sentiment", "class", "category", "target", "polarity", "rating", "stars")


class Row(NamedTuple):
    """A text with its label, if it has one, and the file and line that it stands in."""

    text: str
    label: str | None
    where: str


class Fault(NamedTuple):
    """What is wrong with a row, and where it stands."""

    what: str
    where: str


class Columns(NamedTuple):
    """The names of the columns of texts and labels; None: to be guessed, or no labels."""

    text: str | None
    label: str | None


def read_table(path: Path, wanted: Columns, faults: list[Fault]) -> tuple[list[Row], Columns]:
    """The good rows of a file, and the columns that were read; bad rows are added to `faults`.

    Raises UserError for a file or header that cannot be used, and for a broken quote.
    """
    columns, entries = table_entries(path, wanted)
    rows: list[Row] = []
    for entry in entries:
        if isinstance(entry, Row):
            rows.append(entry)
        else:
            faults.append(entry)
    return rows, columns


def table_entries(path: Path, wanted: Columns) -> tuple[Columns, Iterator[Row | Fault]]:
    """read_table, row by row as the file is read: a broken quote raises UserError only when it is come to."""
    records = {".csv": csv_records, ".tsv": _tsv_records, ".jsonl": _json_records}[path.suffix.lower()](path)
    first = next(records, None)
    if first is None:
        raise UserError("an empty file", path, "give one whose first line names the columns")
    header = first[1]
    columns = _choose_columns(path, header, wanted)
    return columns, (as_entry(_values(each, header, columns), f"{path} line {line}") for line, each in records)


def add_row(values: tuple[str, str | None] | str, where: str, rows: list[Row], faults: list[Fault]) -> None:
    """Adds a row of a text and its label to `rows`, or what is wrong with it to `faults`; values: as of as_entry."""
    entry = as_entry(values, where)
    if isinstance(entry, Row):
        rows.append(entry)
    else:
        faults.append(entry)


def as_entry(values: tuple[str, str | None] | str, where: str) -> Row | Fault:
    """A row, or what is wrong with it. values: text and label, or what is wrong with the form of the row."""
    fault = values if isinstance(values, str) else _fault_in(*values)
    if isinstance(values, str) or fault is not None:
        return Fault(str(fault), where)
    return Row(values[0].strip(), values[1], where)


def similar_labels(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ only in case, spacing or Unicode form."""
    groups = defaultdict(list)
    for label in labels:
        groups[" ".join(unicodedata.normalize("NFKC", label).casefold().split())].append(label)
    return [sorted(names) for names in groups.values() if len(names) > 1]


def _tsv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their line, the header first; quotes are characters like others."""
    for line, text in numbered_lines(path):
        if text:
            yield line, text.split("\t")


def _json_records(path: Path) -> Iterator[tuple[int, Any]]:
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


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError where a key stands twice, of which json would silently keep the last."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _choose_columns(path: Path, header: Sequence[str], wanted: Columns) -> Columns:
    """The columns to read, as they are called in this file. Raises UserError where the texts' column is not clear."""
    names = [name.strip() for name in header]
    lowered = [name.lower() for name in names]
    chosen = []
    for given, known in ((wanted.text, _TEXT_COLUMNS), (wanted.label, _LABEL_COLUMNS)):
        candidates = [given.lower()] if given is not None else list(known)
        chosen.append(next((names[lowered.index(name)] for name in candidates if name in lowered), None))
    columns, shown = Columns(*chosen), ", ".join(name[:30] for name in names[:12])
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


def _values(record: Any, header: Sequence[str], columns: Columns) -> tuple[str, str | None] | str:
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


def _fault_in(text: str, label: str | None) -> str | None:
    """What is wrong with a text or a label; None where nothing is."""
    limits = {"text": MAX_TEXT_CHARACTERS, "label": MAX_LABEL_CHARACTERS}
    for name, value in (("text", text), ("label", label)):
        if value is None:
            continue
        if not value.strip():
            return f"empty {name}"
        if "\0" in value:
            return f"a NUL character in the {name}"
        if any("\ud800" <= character <= "\udfff" for character in value):
            return f"{name} that is not UTF-8"
        if len(value) > limits[name]:
            return f"{name} of more than {limits[name]:,} characters"
    return None
