"""Patterns of file names, for programs that take more files than a shell's command line holds."""

import glob
from collections.abc import Iterable
from pathlib import Path

from core.errors import UserError


def expanded(words: Iterable[str]) -> list[Path]:
    """The paths that words stand for: each itself, or the files that fit it as a pattern, such as "a/**/*.jpg", in the
    order of names. Raises UserError where nothing fits one."""
    return [path for word in words for path in _fitting(word)]


def _fitting(word: str) -> list[Path]:
    """The paths that one word stands for."""
    if not glob.has_magic(word) or Path(word).exists():
        return [Path(word)]
    paths = sorted(Path(name) for name in glob.iglob(word, recursive=True))
    if not paths:
        raise UserError("no file fits the pattern", word, "give files that exist")
    return paths
