"""What every refusal promises: one line that names what is wrong, exit code 2, nothing created or changed."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError


def assert_refused(call: Callable[[], object], words: str, folder: Path) -> None:
    """The call raises a UserError of one line that has the words in it, and leaves the folder as it was."""
    before = everything(folder)
    with pytest.raises(UserError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert everything(folder) == before


def assert_left_with_2(done: "subprocess.CompletedProcess[str]", words: str, folder: Path) -> None:
    """The program has ended with code 2 and one line that begins with the words, and the folder is empty."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
    assert not list(folder.iterdir())


def everything(folder: Path) -> dict[Path, bytes | None]:
    """All files in and below a folder with what they hold, and all folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
