"""The folder of compiled libraries: whose it is, what in it is whole, and who is building.

A library is native code, so it is loaded only from a folder that nobody else can write to, and only when its SHA-256
is the one written beside it: loading a truncated one kills the process. `<name>/` holds a library and build.json,
`<name>.lock` is held by the process that builds it, `<name>.failed.txt` is the log of a build that failed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FACTS = "build.json"
POLL_SECONDS = 0.1


class Busy(Exception):
    """Another process has held a lock for too long."""


def folders() -> list[Path]:
    """Where libraries may lie, the best place first: the cache; the user's own part of the temporary folder."""
    found = []
    with contextlib.suppress(RuntimeError):  # nobody's home
        base = os.environ.get("ATELIER_CACHE") or Path.home() / ".cache" / "atelier"
        found.append(Path(base, "kernels").absolute())
    return [*found, Path(tempfile.gettempdir(), f"atelier-kernels-{os.geteuid()}").absolute()]


def refusal(folder: Path) -> str | None:
    """Why nothing is loaded from a folder; None for one that is ours alone, or is not there."""
    try:
        link, target = folder.lstat(), folder.stat()
    except FileNotFoundError:
        return None if not folder.is_symlink() else f"{folder} is a link to nothing"
    except OSError as error:
        return f"{folder} cannot be read ({reason_of(error)})"
    if not stat.S_ISDIR(target.st_mode):
        return f"{folder} is not a folder"
    if {link.st_uid, target.st_uid} != {os.geteuid()}:
        return f"{folder} belongs to another user"
    if target.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{folder} can be written by other users"
    return None


def reason_of(error: OSError) -> str:
    """The system's words for an error."""
    return (error.strerror or str(error)).lower()


def find(folder: Path, prefix: str, accept: Callable[[dict[str, Any]], bool]) -> Path | None:
    """A whole library under a name that begins with `prefix`, the newest whose facts are accepted."""
    with contextlib.suppress(OSError):
        entries = [path for path in folder.iterdir() if path.name.startswith(prefix) and "." not in path.name]
        for entry in sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True):
            if (library := whole(entry, accept)) is not None:
                return library
    return None


def whole(entry: Path, accept: Callable[[dict[str, Any]], bool] = lambda facts: True) -> Path | None:
    """The library of an entry, if its facts are accepted and its content is what was written."""
    try:
        facts = json.loads((entry / FACTS).read_bytes())
        library = entry / str(facts["file"])
        if accept(facts) and hashlib.sha256(library.read_bytes()).hexdigest() == facts["sha256"]:
            return library
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


@contextlib.contextmanager
def locked(path: Path, seconds: float, notice_after: float, notice: Callable[[], None]) -> Iterator[None]:
    """Holds a lock that the system takes back when the process ends, however it ends. Raises Busy after `seconds`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        began, told = time.monotonic(), False
        while not try_lock(descriptor):
            waited = time.monotonic() - began
            if waited > seconds:
                raise Busy(path)
            if waited > notice_after and not told:
                notice()
                told = True
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a child forked meanwhile has it open too
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Takes a lock if nobody holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def working_folder(folder: Path, name: str) -> Path:
    """A new private folder to build in; what killed builders of the same library left goes. The lock is held."""
    for leftover in folder.glob(f"{name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}.part-", dir=folder))


def publish(built: Path, file: str, entry: Path, facts: dict[str, Any]) -> Path:
    """Makes a built library an entry, at once and complete, and returns its path. The lock is held."""
    digest = hashlib.sha256((built / file).read_bytes()).hexdigest()
    (built / FACTS).write_text(json.dumps({**facts, "file": file, "sha256": digest}, indent=1), "utf-8")
    for other in built.iterdir():
        if other.name not in (file, FACTS):
            other.unlink()
    shutil.rmtree(entry, ignore_errors=True)  # a broken one
    built.rename(entry)
    return entry / file
