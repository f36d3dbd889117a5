"""The run folder: what a run is (run.json), what it measured (metrics.jsonl, TensorBoard), and who may write to it.

runs/<project>/<name>/run.json  metrics.jsonl  summary.json  tensorboard/  checkpoints/  plots/
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch

from core import checkpoint, distributed
from core.config import RunConfig, read_json, to_plain
from core.distributed import World
from core.errors import UserError

C = TypeVar("C", bound=RunConfig)
FORMAT = 1
PACKAGES = ("torch", "torchvision", "timm", "tokenizers", "pandas", "onnx", "onnxruntime", "numpy", "safetensors")
TIME_FIELDS = ("seconds", "samples_per_second")  # what two equal runs may differ in


@dataclasses.dataclass
class RunFolder(Generic[C]):
    """One run on disk. Of several ranks only rank 0 writes; the others' methods do nothing.

    facts: what the project found in the data and export needs again, such as class names; plain data.
    environment: what the results depend on besides, added to run.json's environment; it may change on resume.
    """

    path: Path
    project: str
    config: C
    facts: dict[str, Any]
    world: World
    resumed: bool
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _events: "Events | None" = None
    _lock_descriptor: int = -1

    @classmethod
    def start(
        cls,
        project: str,
        config: C,
        run_dir: Path | None,
        *,
        resume: bool,
        facts: Mapping[str, Any],
        world: World,
        environment: Mapping[str, Any] | None = None,
    ) -> Self:
        """Makes a new run's folder, or takes up one. Raises UserError for a folder that is in use, not empty,
        not writable, another project's, or made from other data."""
        restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        path = run_dir
        if world.is_main:
            path = path or (launched_before(project) if restarted else None) or unused_path(project)
            resume = resume or (restarted and (path / "run.json").exists())
        path, resume = distributed.from_main((path, resume))
        assert path is not None
        run = cls(path, project, config, dict(facts), world, resume, environment or {})
        if world.is_main:
            run._lock()
            checkpoint.sweep(path)
            if resume:
                run._take_up()
            else:
                run._create()
        distributed.barrier()
        return run

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends a line to metrics.jsonl (it has "step") and its numbers to TensorBoard."""
        if self.world.is_main:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            self._events = self._events or Events(self.path / "tensorboard")
            self._events.add(record["step"], {k: v for k, v in record.items() if isinstance(v, float)})

    def cut_metrics(self, step: int) -> None:
        """Drops the lines of steps that will be made again; they are kept beside the file."""
        path = self.path / "metrics.jsonl"
        if not self.world.is_main or not path.exists():
            return
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            number = len(list(self.path.glob("metrics.jsonl.*.bak"))) + 1
            checkpoint.write_atomically(self.path / f"metrics.jsonl.{number}.bak", b"".join(lines[len(kept) :]))
            checkpoint.write_atomically(path, b"".join(kept))

    def save(self, step: int, state: Mapping[str, Any], best_step: int | None) -> None:
        """Writes a checkpoint and rotates older ones away."""
        if self.world.is_main:
            metrics = self.path / "metrics.jsonl"
            if metrics.exists():  # a checkpoint's steps have their lines on the disk
                with metrics.open("rb") as file:
                    os.fsync(file.fileno())
            checkpoint.save(self.path, step, state, project=self.project)
            checkpoint.rotate(self.path, self.config.keep, [] if best_step is None else [best_step])

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json, the sign that the run is complete, and lets go of the folder."""
        if self.world.is_main:
            body = {"config": to_plain(self.config), **summary}
            checkpoint.write_atomically(self.path / "summary.json", json.dumps(body, indent=1).encode())
            if self._events is not None:
                self._events.close()
            os.close(self._lock_descriptor)

    def says_complete(self) -> bool:
        """Whether nothing is left to do in a run that was taken up; it is then said."""
        if self.resumed and self.is_complete:
            self.say(f"already complete: {self.path}")
            return True
        return False

    def say(self, text: str) -> None:
        """Prints a line, once for all ranks."""
        if self.world.is_main:
            print(text, flush=True)

    @property
    def is_complete(self) -> bool:
        """Whether all of what the settings ask for is done."""
        path = self.path / "summary.json"
        if not path.exists():
            return False
        done = json.loads(path.read_bytes())["config"]
        wanted = to_plain(self.config)
        return all(done[name] == wanted[name] for name in ("epochs", "max_steps", "patience"))

    def _create(self) -> None:
        """Writes run.json into an empty folder."""
        body = {
            "format": FORMAT,
            "project": self.project,
            "config": to_plain(self.config),
            "facts": self.facts,
            "environment": {**environment(self.world), **self.environment},
            "launcher": launcher(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "history": [],
        }
        with readable_errors(self.path):
            checkpoint.write_atomically(self.path / "run.json", json.dumps(body, indent=1).encode())

    def _take_up(self) -> None:
        """Checks that run.json is this project's and this data's, and notes what is different this time."""
        body = read_run(self.path, self.project)
        for name, value in json.loads(json.dumps(self.facts)).items():
            if body["facts"].get(name) != value:
                where = f"{name} in {self.path}"
                raise UserError("the data is not what the run began with", where, "give the old data")
        now, then = {**environment(self.world), **self.environment}, body["environment"]
        watched = ("torch", "threads", "ranks", "processor", "kernels")
        changed = [name for name in watched if name in then and now.get(name) != then[name]]
        for name in changed:
            text = f"note: {name} was {then[name]}, is {now.get(name)}; the run goes on, but not bit for bit as before"
            print(text, file=sys.stderr)
        config = to_plain(self.config)
        if config != body["config"] or changed:
            body["history"].append({"time": datetime.now(UTC).isoformat(), "config": config, "environment": now})
            body["config"] = config
            checkpoint.write_atomically(self.path / "run.json", json.dumps(body, indent=1).encode())

    def _lock(self) -> None:
        """Takes the folder for this process; the system gives it back when the process ends, however it ends."""
        with readable_errors(self.path):
            if not self.resumed and self.path.exists() and not is_empty(self.path):
                raise UserError("the run folder is not empty", self.path, f"give another, or --resume {self.path}")
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(lock, 200).decode()
                raise UserError("the run folder is in use", f"{self.path} by {holder}", "wait, or stop it") from None
            if not self.resumed and not is_empty(self.path):
                raise UserError("the run folder is not empty", self.path, f"give another, or --resume {self.path}")
            os.ftruncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
            self._lock_descriptor = lock


def read_run(path: Path, project: str | None = None) -> dict[str, Any]:
    """run.json of a run. Raises UserError for a folder that is none, another project's, or a newer format's."""
    body = read_json(path / "run.json", "not a run folder", "give a folder that a train program made")
    if body.get("format") != FORMAT:
        raise UserError("another format of run", f"{path}: {body.get('format')}", f"this version reads format {FORMAT}")
    if project is not None and body.get("project") != project:
        raise UserError("a run of another project", path, f"it was made by projects.{body.get('project')}")
    return body


def environment(world: World) -> dict[str, Any]:
    """What a result depends on besides settings and data: versions, machine, commit."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        **versions,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "ranks": world.size,
        "commit": git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def processor() -> str:
    """The processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as file:
        name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    return f"{name}, {os.cpu_count()} cores"


def git_commit() -> str | None:
    """The commit that this code is at, with "-dirty" where files differ from it; None outside a checkout."""
    root = Path(__file__).parent.parent
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def launcher() -> str | None:
    """What tells one torchrun from another, the same for all restarts of its ranks."""
    return f"{socket.gethostname()}/{os.getppid()}" if "TORCHELASTIC_RUN_ID" in os.environ else None


def launched_before(project: str) -> Path | None:
    """The run that this same torchrun began before a rank was lost."""
    for path in sorted(Path("runs", project).glob("*/run.json"), key=lambda p: p.stat().st_mtime, reverse=True):
        with contextlib.suppress(ValueError):
            if json.loads(path.read_bytes()).get("launcher") == launcher():
                return path.parent
    return None


def unused_path(project: str) -> Path:
    """runs/<project>/<date>-<n> with the first n that is free."""
    parent, date = Path("runs", project), time.strftime("%Y-%m-%d")
    number = 1
    while (parent / f"{date}-{number}").exists():
        number += 1
    return parent / f"{date}-{number}"


def is_empty(path: Path) -> bool:
    """Whether a folder holds nothing but a lock and half-written files."""
    return all(entry.name == "run.lock" or entry.name.startswith(checkpoint.TEMPORARY) for entry in path.iterdir())


@contextlib.contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turns an error of the system, met before training began, into a UserError about the folder."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError("the run folder cannot be written", f"{path} ({reason})", "give another --run-dir") from error


class Events:
    """A TensorBoard event file, written record by record: torch's writer takes a second longer to load, and
    tensorboard's own hands every line to a thread."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("ab")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, **content: Any) -> None:
        """Appends an event."""
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._file.flush()
