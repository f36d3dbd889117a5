"""Who may write into a run folder: one process at a time, and nothing is followed out of it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from core.files import TEMPORARY

_LOCK_FILE = "run.lock"


def lock_folder(path: Path, *, must_be_empty: bool) -> int:
    """Takes a folder, made if it is not there, for this process; returns the lock, to be closed at the end.

    The system releases it when the process ends, however it ends. Raises UserError for a folder that is in use, is not
    writable, or has to be empty and is not.
    """
    todo = f"give another, or --resume {path}"
    with readable_errors(path):
        if must_be_empty and path.exists() and not _is_empty(path):
            raise UserError("the run folder is not empty", path, todo)
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 200).decode(errors="replace")
            os.close(lock)
            raise UserError("the run folder is in use", f"{path} by {holder}", "wait, or stop it") from None
        if must_be_empty and not _is_empty(path):
            raise UserError("the run folder is not empty", path, todo)
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process holds the folder now; takes nothing and changes nothing."""
    try:
        lock = os.open(path / _LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # no training has been here, or it may not be asked
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def refuse_links(path: Path) -> None:
    """Raises UserError for a link anywhere in a run folder: what is read or written there would be elsewhere."""
    for folder, folders, names in os.walk(path):
        for entry in (Path(folder, name) for name in (*folders, *names)):
            if entry.is_symlink():
                raise UserError("a link in the run folder", entry, "put the file itself there, or remove the link")


@contextlib.contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turns an error of the system, met before training began, into a UserError about the folder."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError("the run folder cannot be written", f"{path} ({reason})", "give another --run-dir") from error


def _is_empty(path: Path) -> bool:
    """Whether a folder holds nothing but a lock and half-written files."""
    return all(entry.name == _LOCK_FILE or entry.name.startswith(TEMPORARY) for entry in path.iterdir())
