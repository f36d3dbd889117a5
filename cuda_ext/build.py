"""Compiled kernels where this machine can have them: built once, kept, loaded in a few milliseconds.

`ensure(device_type)` is all that an operation calls. Nothing that can be missing or broken stops a program: without a
library the operations compute in plain PyTorch, and one line on standard error says why. ATELIER_EXT=require makes
that line an error; ATELIER_EXT=off looks for no library.
"""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from cuda_ext.library import Recipe, locate, say, speaks
from cuda_ext.toolchain import Unavailable

Mode = Literal["auto", "require", "off"]
DEVICES = ("cpu", "cuda")


class ExtensionError(RuntimeError):
    """ATELIER_EXT asks for kernels that this machine does not have, or means nothing: the user has to put it right."""

    exit_code = 2  # for a program that leaves because of it


@dataclass(frozen=True)
class Status:
    """What became of one device's kernels in this process."""

    device: str
    active: bool
    reason: str | None = None
    library: Path | None = None
    seconds: float = 0.0
    built: bool = False  # by this process; otherwise it was there
    log: Path | None = None  # of a build that failed

    def __str__(self) -> str:
        if not self.active:
            return f"{self.device} kernels: plain PyTorch ({self.reason})"
        return (
            f"{self.device} kernels: {'compiled' if self.built else 'loaded'} in {self.seconds:.2f} s, {self.library}"
        )

    def plain(self) -> dict[str, str | None]:
        """What a run's results can depend on, for its metadata: the library's name, equal for equal libraries."""
        name = self.library.parent.name if self.library is not None else "plain PyTorch"
        return {"kernels": name, "kernels_reason": self.reason}


_active: dict[str, bool] = {}
_statuses: dict[str, Status] = {}
_locks: dict[int, threading.Lock] = {}  # by process number: a fork copies a lock as it stands, held or not


def ensure(device_type: str) -> bool:
    """Whether a device's compiled kernels are active, after the first call has loaded or built them.

    Raises ExtensionError where ATELIER_EXT asks for what cannot be had, and nothing else.
    """
    active = _active.get(device_type)
    return first_answer(device_type) if active is None else active


def is_active(device_type: str) -> bool:
    """Whether a device's compiled kernels are active; builds and loads nothing."""
    return _active.get(device_type, False)


def status(device_type: str) -> Status:
    """What became of a device's kernels so far."""
    unknown = "not needed so far" if device_type in DEVICES else "there are none for this device"
    return _statuses.get(device_type, Status(device_type, False, unknown))


def for_run(device_type: str) -> dict[str, str | None]:
    """Loads or builds a device's kernels, and returns what run.json records of them."""
    ensure(device_type)
    return status(device_type).plain()


def first_answer(device_type: str) -> bool:
    """What `ensure` answers while it does not know yet."""
    if device_type not in DEVICES:
        return False
    wanted = mode()
    with _locks.setdefault(os.getpid(), threading.Lock()):
        if device_type not in _statuses:
            _statuses[device_type] = decide(device_type, wanted)
    found = _statuses[device_type]
    if wanted == "require" and not found.active:
        raise ExtensionError(f"no compiled {device_type} kernels, and ATELIER_EXT=require: {found.reason}")
    _active[device_type] = found.active
    return found.active


def mode() -> Mode:
    """What ATELIER_EXT says. Raises ExtensionError for a value that does not exist."""
    value = os.environ.get("ATELIER_EXT") or "auto"
    for known in get_args(Mode):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise ExtensionError(f"unknown value: ATELIER_EXT={value}; choose from {', '.join(get_args(Mode))}")


def decide(device_type: str, wanted: Mode) -> Status:
    """Loads a device's kernels if they are wanted, and says so where there are none."""
    if wanted == "off":
        return Status(device_type, False, "switched off by ATELIER_EXT=off")
    found = obtain(Recipe(device_type))
    if not found.active and wanted == "auto" and speaks():
        say(f"note: plain PyTorch in place of the compiled {device_type} kernels, same results: {found.reason}")
    return found


def obtain(recipe: Recipe, *, again: bool = False) -> Status:
    """Finds or builds a library and loads it; what stands in the way is the status's reason.

    again: build even if that has failed before.
    """
    began = time.perf_counter()
    try:
        library, built = locate(recipe, again=again)
        torch.ops.load_library(str(library))
    except Unavailable as error:
        return Status(recipe.device, False, str(error), log=error.log)
    except Exception as error:  # whatever it is, a training must not end because of it
        return Status(recipe.device, False, f"{type(error).__name__}: {error}; see python -m cuda_ext doctor")
    return Status(recipe.device, True, None, library, time.perf_counter() - began, built)
