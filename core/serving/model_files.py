"""The files that a server answers with, by name, each replaced as a whole when a new one lies in its place.

A request is answered with the file that it began with. A new file that is broken, or another project's, changes
nothing but what /health says.
"""

import hashlib
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from core.errors import UserError, printable
from core.inference import OnnxModel
from core.serving.limits import Refused

M = TypeVar("M", bound=OnnxModel[Any])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A file that is being served. since: when it was loaded, ISO 8601."""

    model: M
    sha256: str
    num_bytes: int
    since: str


class ModelFile(Generic[M]):
    """One path, and what has been loaded from it. error: why its newest content is not served, if so.

    load: opens a file; raises UserError for one that cannot be served.
    """

    def __init__(self, name: str, path: Path, load: Callable[[Path], M]) -> None:
        self.name, self.path, self._load = name, path, load
        self.error: str | None = None
        self._stamp: _Stamp | None = self._look()
        self.loaded = self._open()

    def reload_if_replaced(self) -> bool | None:
        """Loads a new content: True where it is served now, False where it cannot be, None where nothing is new."""
        stamp: _Stamp | None = None
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return None
            loaded = self._open()
            if self._look() != stamp:
                return None  # it is still being written
        except Exception as error:
            message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            is_new = (self._stamp, self.error) != (stamp, message)
            self._stamp, self.error = stamp, message
            return False if is_new else None
        self.loaded, self._stamp, self.error = loaded, stamp, None
        return True

    def _look(self) -> _Stamp:
        """What changes when a file is replaced or written to. Raises OSError."""
        status = os.stat(self.path)
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _open(self) -> Loaded[M]:
        """Loads the file. Raises UserError."""
        content = self.path.read_bytes()
        model, now = self._load(self.path), datetime.now(UTC).isoformat(timespec="seconds")
        return Loaded(model, hashlib.sha256(content).hexdigest(), len(content), now)


class ModelFiles(Generic[M]):
    """All files of a server by name, and the thread that looks for replaced ones.

    observe: told a file's name and whether its new content is served.
    """

    def __init__(self, files: Sequence[ModelFile[M]], observe: Callable[[str, bool], None] = lambda *_: None) -> None:
        self.by_name = {file.name: file for file in files}
        self.observe = observe
        self._stopping = threading.Event()

    @property
    def first(self) -> ModelFile[M]:
        """The file that is meant where a request names none."""
        return next(iter(self.by_name.values()))

    def named(self, name: str) -> ModelFile[M]:
        """The file of a name. Raises Refused."""
        if name not in self.by_name:
            raise Refused(404, "no_such_model", f"there are {', '.join(self.by_name)}")
        return self.by_name[name]

    def health(self) -> dict[str, Any]:
        """Whether all files are served as they lie there: "ok", or "degraded" with the reason beside the file."""
        models = {
            name: {"since": file.loaded.since, "sha256": file.loaded.sha256, "error": file.error}
            for name, file in self.by_name.items()
        }
        is_good = all(file.error is None for file in self.by_name.values())
        return {"status": "ok" if is_good else "degraded", "models": models}

    def watch(self, seconds: float) -> None:
        """Looks for replaced files again and again, in a thread of its own; 0: never."""
        if seconds:
            threading.Thread(target=self._watch, args=(seconds,), name="reload", daemon=True).start()

    def stop(self) -> None:
        """Ends that thread."""
        self._stopping.set()

    def _watch(self, seconds: float) -> None:
        """The thread."""
        while not self._stopping.wait(seconds):
            for file in self.by_name.values():
                is_served = file.reload_if_replaced()
                if is_served is not None:
                    self.observe(file.name, is_served)
                    state = "is served now" if is_served else f"not served, the old one stays: {file.error}"
                    print(printable(f"{file.name}: new content of {file.path} {state}"), file=sys.stderr, flush=True)


def named_files(given: Sequence[str], load: Callable[[Path], M]) -> ModelFiles[M]:
    """Files as a command line gives them, FILE or NAME=FILE. Raises UserError for one that cannot be loaded.

    A file's own name is that of the file without its ending, or of its folder where that is "model".
    """
    files: dict[str, ModelFile[M]] = {}
    for word in given:
        name, equals, rest = word.partition("=")
        path = Path(rest if equals and _NAME.fullmatch(name) and not Path(word).exists() else word)
        if path == Path(word):
            stem = path.stem if path.stem != "model" else path.absolute().parent.name
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-_")[:64] or "model"
        if not path.is_file():
            raise UserError("no such file", path, "make one with the project's export program")
        if name in files:
            where = f"{name}: {files[name].path} and {path}"
            raise UserError("two files of one name", where, "name them, as in NAME=FILE")
        files[name] = ModelFile(name, path, load)
    return ModelFiles(list(files.values()))
