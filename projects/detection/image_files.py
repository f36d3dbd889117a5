"""The files that annotations name: images that decode, regular files of a limited size, names that can be paths."""

import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.text_files import open_regular
from core.vision.decoding import decode_bytes
from core.vision.folders import is_hidden

_THREADS = 4
_MAX_PATH_BYTES = 4096


@dataclass(frozen=True)
class CheckedImage:
    """A file that decodes: width and height in pixels of the upright image, and the file's SHA-256."""

    path: Path
    width: int
    height: int
    sha256: str


def check_images(paths: Sequence[Path]) -> list[CheckedImage | str]:
    """Decodes each file once, in threads: a CheckedImage, or what is wrong with the file. The pixels are not kept."""
    with ThreadPoolExecutor(_THREADS) as pool:  # Pillow decodes without holding the interpreter's lock
        return list(pool.map(_check_image, paths))


def _check_image(path: Path) -> CheckedImage | str:
    try:
        with open_regular(path) as file:
            content = file.read()
        height, width = decode_bytes(content, path).shape[:2]
    except FileNotFoundError:
        return f"the image is missing: {path}"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"the image cannot be read: {path} ({reason})"
    except UserError as error:
        return str(error).rpartition(";")[0]
    return CheckedImage(path, width, height, hashlib.sha256(content).hexdigest())


def wrong_size(stated: tuple[Any, Any], image: CheckedImage) -> str | None:
    """What is wrong with a stated width and height, numbers or their texts; None where they fit or are absent."""
    if stated == (None, None) or tuple(number_of(side) for side in stated) == (image.width, image.height):
        return None
    shown = "×".join(str(side)[:20] for side in stated)
    return f"width and height are stated as {shown}, the image has {image.width}×{image.height}"


def number_of(value: Any) -> float | None:
    """A finite number from a number or its text ("96", "96.0"); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def visible_files(root: Path) -> list[Path]:
    """The files in and below a folder in the order of names, without hidden ones; links are followed, loops are not."""
    files: list[Path] = []
    visited: set[Path] = set()
    for folder, names, file_names in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        names[:] = [] if real in visited else [name for name in names if not is_hidden(name)]
        if real not in visited:
            files += [Path(folder, name) for name in file_names if not is_hidden(name)]
        visited.add(real)
    return sorted(files)


def path_inside(root: Path, name: str) -> Path | None:
    """The path of a file that an annotation names; None where the name leads out of the folder. Links are followed."""
    parts = Path(name).parts
    if not parts or "\0" in name or Path(name).is_absolute() or ".." in parts or not _is_possible_path(name):
        return None
    return root / name


def _is_possible_path(name: str) -> bool:
    """Whether the name can be encoded and is not over-long."""
    try:
        return len(name.encode()) <= _MAX_PATH_BYTES and all(len(part.encode()) <= 255 for part in Path(name).parts)
    except UnicodeEncodeError:  # a lone surrogate, as JSON's \ud800 gives
        return False


def read_regular(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises OSError for another kind of file, and one that is larger."""
    with open_regular(path, max_bytes) as file:
        return file.read()
