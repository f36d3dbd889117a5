"""Compiled kernels: built once on a machine, stored, and loaded in a few milliseconds.

`ensure(device_type)` is all that an operation calls. A missing or broken compiler or library stops no program: without
a library the operations compute in plain PyTorch, and one line on standard error says why. ATELIER_EXT=require makes
that line an error; with ATELIER_EXT=off no library is used.
"""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from cuda_ext.kernel_library import Recipe, locate, say, speaks
from cuda_ext.toolchain import Unavailable

_Mode = Literal["auto", "require", "off"]
DEVICES = ("cpu", "cuda")


class ExtensionError(RuntimeError):
    """ATELIER_EXT has an unknown value, or requires kernels that this machine does not have."""

    exit_code = 2  # of a program that ends because of it: the user's input is wrong


@dataclass(frozen=True)
class Status:
    """The state of one device's kernels in this process: whether they are used, and otherwise why not."""

    device: str
    active: bool
    reason: str | None = None
    library: Path | None = None
    seconds: float = 0.0
    built: bool = False  # by this process; otherwise it was loaded from the cache
    log: Path | None = None  # of a build that failed

    def __str__(self) -> str:
        if not self.active:
            return f"{self.device} kernels: plain PyTorch ({self.reason})"
        return (
            f"{self.device} kernels: {'compiled' if self.built else 'loaded'} in {self.seconds:.2f} s, {self.library}"
        )

    def plain(self) -> dict[str, str | None]:
        """What run.json records: the library's name, which is equal for equal libraries, or why there is none."""
        name = self.library.parent.name if self.library is not None else "plain PyTorch"
        return {"kernels": name, "kernels_reason": self.reason}


_active: dict[str, bool] = {}
_statuses: dict[str, Status] = {}
_locks: dict[int, threading.Lock] = {}  # by process number: a fork copies a lock as it stands, held or not


def ensure(device_type: str) -> bool:
    """Whether a device's compiled kernels are active, after the first call has loaded or built them.

    Raises ExtensionError where ATELIER_EXT requires kernels that are not available, and nothing else.
    """
    active = _active.get(device_type)
    return _first_answer(device_type) if active is None else active


def is_active(device_type: str) -> bool:
    """Whether a device's compiled kernels are active; builds and loads nothing."""
    return _active.get(device_type, False)


def status(device_type: str) -> Status:
    """The state of a device's kernels so far."""
    unknown = "not needed so far" if device_type in DEVICES else "there are none for this device"
    return _statuses.get(device_type, Status(device_type, False, unknown))


def for_run(device_type: str) -> dict[str, str | None]:
    """Loads or builds a device's kernels, and returns what run.json records of them."""
    ensure(device_type)
    return status(device_type).plain()


def _first_answer(device_type: str) -> bool:
    """Loads or builds a device's kernels, once in a process, and returns whether they are active."""
    if device_type not in DEVICES:
        return False
    wanted = mode()
    with _locks.setdefault(os.getpid(), threading.Lock()):
        if device_type not in _statuses:
            _statuses[device_type] = _decide(device_type, wanted)
    result = _statuses[device_type]
    if wanted == "require" and not result.active:
        raise ExtensionError(f"no compiled {device_type} kernels, and ATELIER_EXT=require: {result.reason}")
    _active[device_type] = result.active
    return result.active


def mode() -> _Mode:
    """The value of ATELIER_EXT. Raises ExtensionError for an unknown one."""
    value = os.environ.get("ATELIER_EXT") or "auto"
    for known in get_args(_Mode):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise ExtensionError(f"unknown value: ATELIER_EXT={value}; choose from {', '.join(get_args(_Mode))}")


def _decide(device_type: str, wanted: _Mode) -> Status:
    """Loads or builds a device's kernels if they are wanted; prints a note where that is not possible."""
    if wanted == "off":
        return Status(device_type, False, "switched off by ATELIER_EXT=off")
    result = obtain(Recipe(device_type))
    if not result.active and wanted == "auto" and speaks():
        say(f"note: plain PyTorch in place of the compiled {device_type} kernels, same results: {result.reason}")
    return result


def obtain(recipe: Recipe, *, again: bool = False) -> Status:
    """Finds or builds a library and loads it; the status gives the reason where that is not possible.

    again: build even if that has failed before.
    """
    began = time.perf_counter()
    try:
        library, built = locate(recipe, again=again)
        torch.ops.load_library(str(library))
    except Unavailable as error:
        return Status(recipe.device, False, str(error), log=error.log)
    except Exception as error:  # a training must not end because of any of them
        return Status(recipe.device, False, f"{type(error).__name__}: {error}; see python -m cuda_ext doctor")
    return Status(recipe.device, True, None, library, time.perf_counter() - began, built)
