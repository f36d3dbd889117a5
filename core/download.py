"""Downloads that cannot leave a half or wrong file behind: mirrors in turn, a pinned SHA-256, a rename at the end.

Files lie in `$ATELIER_CACHE`, by default `~/.cache/atelier`. A file that is already there is hashed before use.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.files import temporary_beside

TIMEOUT_SECONDS = 20
_CHUNK_BYTES = 1 << 20
_SECONDS_FOR_ANY, _SLOWEST_BYTES_PER_SECOND = 60.0, 20_000.0


@dataclass(frozen=True)
class RemoteFile:
    """A file that is the same wherever it comes from."""

    name: str
    size: int
    sha256: str
    urls: Sequence[str]


def cache_dir() -> Path:
    """Where downloads are kept. Raises UserError where that place cannot be known."""
    named = os.environ.get("ATELIER_CACHE")
    try:
        return Path(named) if named else Path.home() / ".cache" / "atelier"
    except RuntimeError as error:  # HOME is not set, and this user has no entry
        raise UserError("no home folder for the cache", error, "set ATELIER_CACHE to a folder for downloads") from error


def fetch(file: RemoteFile) -> Path:
    """The local path of a file, downloaded if it is not there yet.

    Raises UserError, naming the file, its size, its hash and where to put it, where no mirror gives it, and naming
    ATELIER_CACHE where the cache cannot be read or written.
    """
    path = cache_dir() / file.name
    try:
        if path.exists():
            if path.stat().st_size == file.size and sha256_of(path) == file.sha256:
                return path
            todo = f"delete it, or put the one with SHA-256 {file.sha256}"
            raise UserError("a downloaded file was changed", path, todo)
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = f"{error.filename or path} ({(error.strerror or str(error)).lower()})"
        raise UserError("the cache cannot be used", where, "set ATELIER_CACHE to a folder for downloads") from error
    reasons = []
    for url in file.urls:
        partial = temporary_beside(path)
        try:
            download(url, partial, file.size)
            if partial.stat().st_size != file.size or sha256_of(partial) != file.sha256:
                raise ValueError("other content than expected")
            partial.replace(path)
            return path
        except (OSError, ValueError, http.client.HTTPException) as error:
            reasons.append(f"{url.split('/')[2]}: {getattr(error, 'reason', error)}")
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    raise UserError(
        f"no mirror gave {file.name}",
        "; ".join(reasons),
        f"put the file ({file.size} bytes, SHA-256 {file.sha256}) at {path}",
    )


def download(url: str, path: Path, size: int) -> None:
    """Writes what a URL gives to a path, at most `size` bytes. Raises OSError or ValueError, also where it takes longer
    than a minute and the time of the slowest connection that is worth waiting for."""
    if not _is_safe(url):
        raise ValueError("not an https address")
    limit_seconds = _SECONDS_FOR_ANY + size / _SLOWEST_BYTES_PER_SECOND
    latest = time.monotonic() + limit_seconds
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as target:
        if not _is_safe(response.geturl()):
            raise ValueError("redirected to another kind of address")
        done = 0
        while chunk := response.read1(_CHUNK_BYTES):  # read() would wait for a whole chunk, however slow the bytes come
            done += len(chunk)
            if done > size:
                raise ValueError(f"more than the expected {size} bytes")
            if time.monotonic() > latest:
                raise ValueError(f"too slow: {done} of {size} bytes in {limit_seconds:.0f} seconds")
            target.write(chunk)
            if sys.stderr.isatty():
                columns = shutil.get_terminal_size().columns
                print(f"\rdownloading {url}: {done / size:.0%}"[:columns], end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if done < size:
        raise ValueError(f"only {done} of {size} bytes")


def _is_safe(url: str) -> bool:
    """Whether an address is encrypted, or this machine's own."""
    return url.startswith(("https://", "http://127.0.0.1:"))


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
