"""Texts from .txt files: a text a line, or folders of classes with a text a file.

Inference reads with this too; no torch. Hidden files, and what archives of other systems add to a folder, never count.
"""

from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.text_files import numbered_lines, read_whole
from projects.sentiment.tables import MAX_TEXT_CHARACTERS, Fault, Row, add_row

_SPLITS = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation"),
    "test": ("test", "testing"),
}
_UNLABELED = ("unsup",)  # the unlabeled texts in the folder of the IMDB reviews
_HIDDEN = ("__macosx", "thumbs.db", "desktop.ini")


def find_splits(root: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The tables (or folders of classes) of a folder for train, dev and test; empty where it has none of them.

    Raises UserError where two files are for one of them, and where train is missing.
    """
    splits: dict[str, Path] = {}
    for split, names in _SPLITS.items():
        entries = _visible(root)
        tables = [p for p in entries if p.stem.lower() in names and p.suffix.lower() in suffixes and not p.is_dir()]
        for path in tables or [p for p in entries if p.name.lower() in names and p.is_dir()]:
            if split in splits:
                raise UserError(f"two files for {split}", f"{splits[split]}, {path}", "leave one in the folder")
            splits[split] = path
    if splits and "train" not in splits:
        where = ", ".join(str(path) for path in splits.values())
        raise UserError("no training texts", where, f"add train{Path(where).suffix} beside it, or name the file itself")
    return splits


def read_classes(root: Path, faults: list[Fault], notes: list[str]) -> list[Row]:
    """The texts of ROOT/CLASS/**.txt, a text a file; where there are none, of ROOT/CLASS.txt, a text a line.

    Raises UserError for a file that cannot be read.
    """
    rows: list[Row] = []
    for folder in (entry for entry in _visible(root) if entry.is_dir() and entry.name not in _UNLABELED):
        paths, num_others = text_files_below(folder)
        if num_others:
            notes.append(f"{num_others:,} files in {folder} do not end with .txt and are left out")
        for path in paths:
            read_text(path, folder.name, rows, faults)
    if not rows:
        for path in (entry for entry in _visible(root) if _is_text_file(entry)):
            read_lines(path, path.stem, rows, faults)
    return rows


def read_text(path: Path, label: str | None, rows: list[Row], faults: list[Fault]) -> None:
    """Adds the row of a file that is one text."""
    add_row((read_whole(path, MAX_TEXT_CHARACTERS), label), str(path), rows, faults)


def read_lines(path: Path | None, label: str | None, rows: list[Row], faults: list[Fault]) -> None:
    """Adds a row for each line of a text file; path: None stands for standard input."""
    for line, text in numbered_lines(path):
        add_row((text, label), f"{path or 'standard input'} line {line}", rows, faults)


def text_files_below(folder: Path) -> tuple[list[Path], int]:
    """The .txt files in and below a folder in the order of their names, and the number of other files."""
    visible = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(map(_is_hidden, path.relative_to(folder).parts))
    ]
    texts = [path for path in visible if _is_text_file(path)]
    return texts, len(visible) - len(texts)


def _visible(root: Path) -> list[Path]:
    """What stands in a folder, in the order of names, without hidden files."""
    return [path for path in sorted(root.iterdir()) if not _is_hidden(path.name)]


def _is_hidden(name: str) -> bool:
    """Whether a name is one that users do not see."""
    return name.startswith(".") or name.lower() in _HIDDEN


def _is_text_file(path: Path) -> bool:
    """Whether a name ends like a text file's."""
    return path.suffix.lower() == ".txt" and not path.is_dir()
