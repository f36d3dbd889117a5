"""Downloads that cannot leave a half or wrong file behind: mirrors in turn, a pinned SHA-256, a rename at the end.

Files lie in `$ATELIER_CACHE`, by default `~/.cache/atelier`. A file that is already there is hashed before use.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError

TIMEOUT_SECONDS = 20
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file that is the same wherever it comes from."""

    name: str
    size: int
    sha256: str
    urls: Sequence[str]


def cache_dir() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get("ATELIER_CACHE") or Path.home() / ".cache" / "atelier")


def fetch(file: RemoteFile) -> Path:
    """The local path of a file, downloaded if it is not there yet.

    Raises UserError, naming the file, its size, its hash and where to put it, where no mirror gives it.
    """
    path = cache_dir() / file.name
    if path.exists():
        if path.stat().st_size == file.size and sha256_of(path) == file.sha256:
            return path
        raise UserError("a downloaded file was changed", path, f"delete it, or put the one with SHA-256 {file.sha256}")
    reasons = []
    for url in file.urls:
        partial = path.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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
    """Writes what a URL gives to a path, at most `size` bytes. Raises OSError or ValueError."""
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError("not an https address")
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as target:
        if not response.geturl().startswith(("https://", "http://127.0.0.1:")):
            raise ValueError("redirected to another kind of address")
        done = 0
        while chunk := response.read(CHUNK_BYTES):
            done += len(chunk)
            if done > size:
                raise ValueError(f"more than the expected {size} bytes")
            target.write(chunk)
            if sys.stderr.isatty():
                columns = shutil.get_terminal_size().columns
                print(f"\rdownloading {url}: {done / size:.0%}"[:columns], end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if done < size:
        raise ValueError(f"only {done} of {size} bytes")


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
