"""Files that are never half written, and JSON that is read strictly. This module loads no torch."""

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from core.errors import UserError
from core.text_files import open_regular

Buffer = bytes | memoryview
_MAX_JSON_BYTES = 256 << 20
TEMPORARY = ".tmp-"  # how the name of a file or folder begins that is not complete yet


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that no other process uses, whatever its process number is."""
    return path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(6)}")


def write_synced(path: Path, pieces: Sequence[Buffer]) -> dict[str, Any]:
    """Writes a new file and waits until it is on the disk; returns its size and SHA-256. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for piece in pieces:
            size += len(piece)
            digest.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]  # one call may write less than it was given
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
    return {"size": size, "sha256": digest.hexdigest()}


def sync_folder(path: Path) -> None:
    """Waits until the folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file as a whole: at any instant the path holds the old or the new content."""
    temporary = temporary_beside(path)
    try:
        write_synced(temporary, [data])
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Replaces a JSON file as a whole. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_atomically(path, json.dumps(data, indent=1, allow_nan=False).encode())


def read_json(path: Path, what: str, todo: str) -> dict[str, Any]:
    """An object from a regular file of JSON, without duplicate keys, NaN or infinity.

    Raises UserError(what, path, todo).
    """
    try:
        with open_regular(path, _MAX_JSON_BYTES) as file:
            content = file.read()
        data = strict_json(content)
    except OSError as error:
        raise UserError(what, f"{path} ({(error.strerror or 'unreadable').lower()})", todo) from error
    except (ValueError, RecursionError) as error:
        raise UserError(what, f"{path} ({error})", todo) from error
    if not isinstance(data, dict):
        raise UserError(what, f"{path} (not an object)", todo)
    return data


def strict_json(content: bytes) -> Any:
    """JSON in UTF-8, without duplicate keys, NaN or infinity. Raises ValueError; RecursionError for deep nesting."""
    return json.loads(content.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError where a key stands twice, of which json would silently keep the last."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _refuse(text: str) -> NoReturn:
    """Refuses NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{text} is not a JSON number")
