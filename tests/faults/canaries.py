"""Hostile files beside canaries: whatever a file asks for, nothing outside its folder is read, run or written.

A canary is a file in another folder that hostile files name. Python's audit events tell what is opened and started; the
canaries' content and time of last access tell it of libraries that Python does not see.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.checkpoint import Broken
from core.errors import RunError, UserError
from tests import forked
from tests.faults.hostile import HOSTILE
from tests.faults.tally import Tally

_SECONDS_FOR_ONE = 600
_STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "ctypes.dlopen")
_CALLING = ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request")
_LONG_AGO = (1_000_000_000, 1_000_000_000)


def canaries_trial(name: str, folder: Path, tally: Tally) -> None:
    """Has one hostile file read in a child; what was touched, and every error but the project's own, is counted."""
    shutil.rmtree(folder, ignore_errors=True)
    inside, outside = folder / "inside", folder / "outside"
    for each in (inside, outside):
        each.mkdir(parents=True)
    _write_canaries(outside)
    read = HOSTILE[name](inside, outside)
    os.utime(outside / "canary", _LONG_AGO)
    os.utime(outside / "canary.png", _LONG_AGO)
    before = _state(outside)
    events = _watched(read, outside)
    tally.count("hostile files")
    for event in events:
        tally.add("others", f"{name}: {event}")
    if _state(outside) != before:
        tally.add("others", f"{name}: a canary was read or changed")


def _write_canaries(outside: Path) -> None:
    """A text and an image that nothing may touch."""
    from PIL import Image

    (outside / "canary").write_text("secret")
    Image.new("RGB", (40, 30), "yellow").save(outside / "canary.png")


def _state(outside: Path) -> list[tuple[str, str, float]]:
    """Names, digests and times of last access of all that is there; looking at it does not change it."""
    rows = []
    for path in sorted(outside.rglob("*")):
        accessed = path.stat().st_atime
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        os.utime(path, (accessed, path.stat().st_mtime))
        rows.append((str(path), digest, accessed))
    return rows


def _watched(read: Callable[[], object], outside: Path) -> list[str]:
    """What a child that calls `read` has touched, and how it ended where it was not as it should."""
    reader, writer = os.pipe()
    child = forked.fork()
    if child == 0:
        _live(read, outside, writer)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        events = [str(json.loads(line)) for line in file]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [*events, *([f"ended with {status}"] if status else [])]


def _live(read: Callable[[], object], outside: Path, writer: int) -> None:
    """The child's life; it does not return."""
    answer = os.fdopen(writer, "w", encoding="utf-8")
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_SECONDS_FOR_ONE)

    def say(text: str) -> None:
        print(json.dumps(text[:300]), file=answer, flush=True)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        is_wrong = event in _CALLING or (event in _STARTING and not _is_a_library(event, arguments, outside))
        if is_wrong or any(isinstance(a, str | bytes) and _leads_to(os.fsdecode(a), outside) for a in arguments):
            say(f"{event} {arguments!r}")

    try:
        sys.addaudithook(hook)
        read()
    except (UserError, RunError, Broken):
        pass
    except SystemExit as left:
        if left.code not in (0, 1, 2):
            say(f"exit {left.code}")
    except BaseException as error:
        say(f"{type(error).__name__}: {error}")
    finally:
        answer.flush()
        os._exit(0)


def _is_a_library(event: str, arguments: tuple[Any, ...], outside: Path) -> bool:
    """Whether what is loaded is an installed library."""
    return event == "ctypes.dlopen" and not str(arguments[0]).startswith(str(outside.parent))


def _leads_to(text: str, outside: Path) -> bool:
    """Whether a path names something in the canaries' folder, over links too."""
    try:
        return outside.name in text and Path(os.path.realpath(text)).is_relative_to(outside.resolve())
    except (OSError, ValueError):
        return False
