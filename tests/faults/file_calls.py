"""Every call by which a process changes files below a folder, counted, and at one of them a fault.

For forked children: the functions of `os` and `open` stay replaced up to the end of the process.
"""

import builtins
import io
import mmap
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ON_PATHS = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "symlink", "truncate")
_ON_DESCRIPTORS = {"write": "write", "ftruncate": "write", "fsync": "sync"}
KINDS = ("write", "sync", "name", "open")  # of calls; "name" is what changes a folder's list of names
_NUMBERS = (*KINDS, "saved", "phase")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Fault:
    """What happens before a call, given by its kind and its number among these, counted from 1.

    signal_number: sent to the process itself; half: a write comes half to the disk before. Otherwise error_number is
    what the call fails with, and, where lasting, every later one.
    """

    kind: str
    at: int
    signal_number: int = 0
    half: bool = False
    error_number: int = 0
    lasting: bool = False


class Shared:
    """Numbers that a child writes and its parent reads, even after a SIGKILL: calls made of each kind, the newest step
    whose checkpoint was reported as saved, and whether the child is inside of the program (1) or behind it (2)."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def __getitem__(self, name: str) -> int:
        return self._numbers[_NUMBERS.index(name)]

    def __setitem__(self, name: str, value: int) -> None:
        self._numbers[_NUMBERS.index(name)] = value


def watch(folder: Path, shared: Shared, fault: Fault | None) -> None:
    """Counts this process's calls from now on, and has the fault happen."""
    before_call = _counter(shared, fault)
    for name in _ON_PATHS:
        setattr(os, name, _on_path(getattr(os, name), folder, before_call))
    for name, kind in _ON_DESCRIPTORS.items():
        setattr(os, name, _on_descriptor(getattr(os, name), kind, folder, before_call))
    opened = _opener(io.open, folder, before_call)
    builtins.open = io.open = opened
    plain = os.open

    def open_descriptor(path: Any, flags: int, *arguments: Any, **rest: Any) -> int:
        if flags & _WRITING and _is_inside(path, folder):
            before_call("open")
        return plain(path, flags, *arguments, **rest)

    os.open = open_descriptor


BeforeCall = Callable[..., None]


def _counter(shared: Shared, fault: Fault | None) -> BeforeCall:
    """The function that each call begins with; it is given a way to make half of the call."""

    is_over = False

    def before_call(kind: str, make_half: Callable[[], object] | None = None) -> None:
        nonlocal is_over
        number = shared[kind] + 1
        shared[kind] = number
        if fault is None or not ((kind == fault.kind and number == fault.at) or (is_over and fault.lasting)):
            return
        is_over = True
        if fault.error_number:
            raise OSError(fault.error_number, os.strerror(fault.error_number))
        if fault.half and make_half is not None:
            make_half()
        signal.raise_signal(fault.signal_number)

    return before_call


def _is_inside(path: Any, folder: Path) -> bool:
    """Whether a path, or a name in an opened folder, belongs to the watched folder."""
    if isinstance(path, int):
        return False
    text = os.fsdecode(path)
    return text.startswith(str(folder)) if text.startswith("/") else "/" not in text


def _on_path(plain: Callable[..., Any], folder: Path, before_call: BeforeCall) -> Callable[..., Any]:
    def call(path: Any, *arguments: Any, **rest: Any) -> Any:
        if _is_inside(path, folder):
            before_call("name")
        return plain(path, *arguments, **rest)

    return call


def _on_descriptor(plain: Callable[..., Any], kind: str, folder: Path, before_call: BeforeCall) -> Callable[..., Any]:
    def call(descriptor: int, *arguments: Any) -> Any:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder)):
            is_write = plain.__name__ == "write"
            half = arguments[0][: len(arguments[0]) // 2] if is_write else b""
            before_call(kind, (lambda: plain(descriptor, half)) if is_write else None)
        return plain(descriptor, *arguments)

    return call


def _opener(plain: Callable[..., Any], folder: Path, before_call: BeforeCall) -> Callable[..., Any]:
    """`open`, with writes of files in the folder counted as they reach the system."""

    class CountedFile(io.FileIO):
        def write(self, data: Any, /) -> int:
            content = bytes(data)
            before_call("write", lambda: io.FileIO.write(self, content[: len(content) // 2]))
            return super().write(content)

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if not set(mode) & set("wax+") or isinstance(file, int) or not _is_inside(file, folder):
            return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
        before_call("open")
        raw = CountedFile(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    return opened
