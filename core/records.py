"""Results written as they come: CSV, JSON lines or Parquet, by the ending of the file's name.

A file of CSV or JSON lines is complete after every record; one of Parquet (https://parquet.apache.org, with the package
pyarrow) is put in place when the program ends. A program that is stopped leaves what it has done; one that refuses its
input leaves nothing.
"""

import csv
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from core.errors import UserError, note_saved, printable
from core.files import temporary_beside

FORMATS = ("csv", "jsonl", "parquet")
_ROWS_OF_A_GROUP = 4096  # of a Parquet file, held in memory

Columns = Mapping[str, type]


def records_path(output: Path | None, given: str | None, name: str) -> Path | None:
    """The file for a program's records: --output itself where its ending is that of a format, else `name` with the
    format's ending in the folder --output. None without --output.

    given: the value of --format. Raises UserError for a file that exists, and for what cannot be.
    """
    if output is None:
        if given is not None:
            raise UserError("a format without a file", f"--format {given}", "add --output")
        return None
    ending = output.suffix.lower()[1:]
    if ending in FORMATS and not output.is_dir():
        if given not in (None, ending):
            raise UserError("two formats", f"--format {given} and --output {output}", "leave out --format")
        if not output.absolute().parent.is_dir():
            raise UserError("no such folder", f"--output {output}", "make it, or give another --output")
        path = output
    else:
        if re.fullmatch(r"\.[a-z]{1,5}", output.suffix) and not output.is_dir():
            todo = f"give a folder, or a file that ends in .{', .'.join(FORMATS)}"
            raise UserError("unknown kind of file", f"--output {output}", todo)
        in_the_way = next((path for path in (output, *output.parents) if path.exists() and not path.is_dir()), None)
        if in_the_way is not None:
            raise UserError("not a folder", f"--output {output}", f"give another; files end in .{', .'.join(FORMATS)}")
        ending = given or "jsonl"
        path = output / f"{name}.{ending}"
    if path.exists():
        raise UserError("a file of results exists already", f"--output {path}", "remove it, or give another --output")
    if ending == "parquet":
        check_parquet()
    return path


def check_parquet() -> None:
    """Raises UserError where the package that writes Parquet is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError("a library is missing", "pyarrow, to write Parquet", "python -m pip install -e .[parquet]")


class RecordWriter:
    """A context that writes records into a new file, and makes the folder for it at the first one.

    columns: names and types (str, int, float) of what CSV and Parquet hold: the entries of a record, those of a mapping
    in it as "name.entry", and those of a sequence of mappings as "name.1.entry". An entry that is missing is left
    empty. JSON lines hold the records as they are.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.num = path, 0
        self._columns = columns
        self._file: _File | None = None
        self._folders = [folder for folder in path.absolute().parents if not folder.exists()]

    def __enter__(self) -> Self:
        return self

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes a record. Raises ValueError for an entry that is not in `columns`, and for NaN."""
        self._opened().add(record)
        self.num += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, UserError) or (error is not None and not self.num):
            self._discard()
            return
        if error is None or self._file is not None:
            self._opened().close()
        if error is not None and self._file is not None:
            told = f"{self.path} holds the first {self.num:,} results"
            note_saved(told)
            if isinstance(error, Exception):
                print(f"note: {printable(told)}", file=sys.stderr)

    def _opened(self) -> "_File":
        """The file, made at the first call."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kinds: dict[str, Callable[[Path, Columns], _File]]
            kinds = {".csv": _Csv, ".jsonl": _JsonLines, ".parquet": _Parquet}
            self._file = kinds[self.path.suffix.lower()](self.path, self._columns)
        return self._file

    def _discard(self) -> None:
        """Removes the file, and the folders that were made for it."""
        if self._file is not None:
            self._file.discard()
            for folder in self._folders:
                if not any(folder.iterdir()):
                    folder.rmdir()


class _File(Protocol):
    """A file of one format."""

    def add(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...

    def discard(self) -> None: ...


class _JsonLines:
    """A JSON object a line."""

    def __init__(self, path: Path, _: Columns) -> None:
        self._path = path
        self._text: TextIO = path.open("x", encoding="utf-8", errors="backslashreplace", newline="")

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes a line, for readers to see it at once."""
        self._text.write(f"{json.dumps(record, allow_nan=False)}\n")
        self._text.flush()

    def close(self) -> None:
        """Ends the file."""
        self._text.close()

    def discard(self) -> None:
        """Removes the file."""
        self._text.close()
        self._path.unlink()


class _Csv(_JsonLines):
    """Comma-separated values with a header (RFC 4180, with line feeds)."""

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path, columns)
        self._columns = columns
        self._rows = csv.writer(self._text, lineterminator="\n")
        self._rows.writerow(columns)

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes a row, for readers to see it at once."""
        self._rows.writerow(_row(record, self._columns).values())
        self._text.flush()


class _Parquet:
    """Parquet, in groups of rows. It stands under another name until it is closed: it cannot be read before."""

    def __init__(self, path: Path, columns: Columns) -> None:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
        self._path, self._temporary, self._columns = path, temporary_beside(path), columns
        self._schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._table = arrow.Table
        self._writer = parquet.ParquetWriter(str(self._temporary), self._schema)
        self._waiting: list[dict[str, Any]] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes a row with those that wait for their group."""
        row = _row(record, self._columns).items()
        self._waiting.append({name: _sound(value) if isinstance(value, str) else value for name, value in row})
        if len(self._waiting) == _ROWS_OF_A_GROUP:
            self._write_group()

    def close(self) -> None:
        """Ends the file and puts it in place."""
        if self._waiting:
            self._write_group()
        self._writer.close()
        self._temporary.rename(self._path)

    def discard(self) -> None:
        """Removes the file."""
        self._writer.close()
        self._temporary.unlink()

    def _write_group(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []


def _sound(text: str) -> str:
    """A text without lone surrogates, which names of files may have and UTF-8 has not."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _row(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """A record's entries by column; None for those that it lacks. Raises ValueError for one without a column."""
    entries = dict(_flat(record))
    if unknown := sorted(set(entries) - set(columns)):
        raise ValueError(f"no column for {unknown[0]}")
    return {name: entries.get(name) for name in columns}


def _flat(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of a record, and of what is nested in it."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in _flat(value))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for number, each in enumerate(value, start=1):
                yield from ((f"{name}.{number}.{key}", inner) for key, inner in _flat(each))
        else:
            yield name, value
