"""The folder of compiled libraries: its owner, checks of its content, and locks for building.

A library is native code, so it is loaded only from a folder that nobody else can write to, and only when its SHA-256
is the one written beside it: loading a truncated one kills the process. `<name>/` holds a library and build.json;
`<name>.lock` is locked by the process that builds it; `<name>.failed.txt` is the log of a build that failed.
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

_FACTS = "build.json"
_POLL_SECONDS = 0.1


class Busy(Exception):
    """Another process has held a lock for too long."""


def folders() -> list[Path]:
    """Folders for libraries, the best first: in the cache, then a private one in the system's temporary folder."""
    result = []
    with contextlib.suppress(RuntimeError):  # a user without a home folder
        base = os.environ.get("ATELIER_CACHE") or Path.home() / ".cache" / "atelier"
        result.append(Path(base, "kernels").absolute())
    return [*result, Path(tempfile.gettempdir(), f"atelier-kernels-{os.geteuid()}").absolute()]


def refusal(folder: Path) -> str | None:
    """Why no library is loaded from a folder; None for one that only this user can write to, or that does not exist."""
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
    """The newest undamaged library whose name begins with `prefix` and whose facts are accepted."""
    with contextlib.suppress(OSError):
        entries = [path for path in folder.iterdir() if path.name.startswith(prefix) and "." not in path.name]
        for entry in sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True):
            if (library := whole(entry, accept)) is not None:
                return library
    return None


def whole(entry: Path, accept: Callable[[dict[str, Any]], bool] = lambda facts: True) -> Path | None:
    """The library in an entry, if its facts are accepted and its SHA-256 is the one that was written."""
    try:
        facts = json.loads((entry / _FACTS).read_bytes())
        library = entry / str(facts["file"])
        if accept(facts) and hashlib.sha256(library.read_bytes()).hexdigest() == facts["sha256"]:
            return library
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


@contextlib.contextmanager
def locked(path: Path, seconds: float, notice_after: float, notice: Callable[[], None]) -> Iterator[None]:
    """Holds a lock, which the system releases when the process ends. Raises Busy after `seconds`.

    notice: is called once after `notice_after` seconds of waiting.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        began, noticed = time.monotonic(), False
        while not _try_lock(descriptor):
            waited = time.monotonic() - began
            if waited > seconds:
                raise Busy(path)
            if waited > notice_after and not noticed:
                notice()
                noticed = True
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a child forked meanwhile has it open too
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Locks a file if no other process has; returns whether it did."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def working_folder(folder: Path, name: str) -> Path:
    """A new private folder to build in; deletes those of killed builders. Called with the library's lock held."""
    for leftover in folder.glob(f"{name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}.part-", dir=folder))


def publish(built: Path, file: str, entry: Path, facts: dict[str, Any]) -> Path:
    """Moves a built library into the cache as a whole, and returns its path. Called with the library's lock held."""
    digest = hashlib.sha256((built / file).read_bytes()).hexdigest()
    (built / _FACTS).write_text(json.dumps({**facts, "file": file, "sha256": digest}, indent=1), "utf-8")
    for other in built.iterdir():
        if other.name not in (file, _FACTS):
            other.unlink()
    shutil.rmtree(entry, ignore_errors=True)  # a broken one
    built.rename(entry)
    return entry / file
