"""The run folder: what a run is (run.json), what it measured (metrics.jsonl, TensorBoard), and who may write to it.

runs/<project>/<name>/run.json  metrics.jsonl  summary.json  tensorboard/  checkpoints/  plots/
"""

import contextlib
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from core import checkpoint, distributed, retention
from core.config import RunConfig
from core.distributed import World
from core.environment import environment, peak_memory
from core.errors import UserError, note_saved, printable, visible
from core.event_file import EventFile
from core.files import read_json, write_atomically, write_json
from core.folder_lock import lock_folder, readable_errors, refuse_links
from core.plain import to_plain
from core.program import TrainCommand
from core.run_record import FORMAT, is_summed_up, read_run

C = TypeVar("C", bound=RunConfig)
F = TypeVar("F")
TIME_FIELDS = ("seconds", "samples_per_second", "gpu_busy", "peak_device_memory_mb")  # may differ in equal runs


@dataclasses.dataclass
class RunFolder(Generic[C, F]):
    """One run on disk. Of several ranks only rank 0 writes; the others' methods do nothing.

    facts: what the run knows beyond its settings and export needs again, such as class names: a dataclass.
    environment: what the results depend on besides, added to run.json's environment; it may change on resume.
    began: time.perf_counter() when the program started. smoke: the run has to show that it learns.
    num_lines: of metrics.jsonl. device_use: of the whole training, by name; empty on a CPU.
    """

    path: Path
    config: C
    facts: F
    world: World
    resumed: bool
    environment: Mapping[str, Any]
    began: float
    smoke: bool = False
    num_lines: int = 0
    device_use: Mapping[str, float] = dataclasses.field(default_factory=dict)
    _events: EventFile | None = None
    _lock: int = -1

    @classmethod
    def start(
        cls, command: TrainCommand[C], facts: F, world: World, environment: Mapping[str, Any] | None = None
    ) -> Self:
        """Makes a new run's folder, or opens that of a run to resume. Raises UserError for a folder that is in use, not
        empty, not writable, another project's, or made from other data."""
        project = command.config.project
        restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        path, resume = command.run_dir, command.resume
        if world.is_main:
            path = path or (_launched_before(project) if restarted else None) or _unused_path(project)
            resume = resume or (restarted and (path / "run.json").exists())
        path, resume = distributed.from_main((path, resume))
        assert path is not None
        run = cls(path, command.config, facts, world, resume, environment or {}, command.began, command.smoke)
        if resume:
            note_saved(f"what the run had saved is as it was; continue with --resume {shlex.quote(str(path))}")
        if world.is_main:
            run._lock = lock_folder(path, must_be_empty=not resume)
            retention.sweep(path)
            if resume:
                run._reopen()
            else:
                run._create()
        distributed.barrier()
        return run

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends a line to metrics.jsonl (it has "step") and its numbers to TensorBoard."""
        if self.world.is_main:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if self._events is None:
                self._events = EventFile(self.path / "tensorboard", to_plain(self.config))
            self._events.add(record["step"], {k: v for k, v in record.items() if isinstance(v, float)})
            self._events.add_images(self.path / "plots")
            self.num_lines += 1

    def log_histograms(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Adds histograms of named values to TensorBoard, at the step of the last line."""
        if self._events is not None:
            self._events.add_histograms(values)

    def set_monitor(self, name: str, larger_is_better: bool) -> None:
        """Writes into run.json which number of the evaluations the run is judged by."""
        if self.world.is_main:
            monitor = {"name": name, "larger_is_better": larger_is_better}
            body = read_run(self.path)
            if body.get("monitor") != monitor:
                write_json(self.path / "run.json", {**body, "monitor": monitor})

    def cut_metrics(self, num_lines: int) -> None:
        """Keeps the first lines of metrics.jsonl and TensorBoard's records of them; what is dropped from metrics.jsonl,
        because it will be measured again, stands in a file beside it."""
        path = self.path / "metrics.jsonl"
        if not self.world.is_main or not path.exists():
            return
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines[:num_lines] if line.endswith(b"\n")]
        if len(kept) < len(lines):
            number = len(list(self.path.glob("metrics.jsonl.*.bak"))) + 1
            write_atomically(self.path / f"metrics.jsonl.{number}.bak", b"".join(lines[len(kept) :]))
            write_atomically(path, b"".join(kept))
        self.num_lines = len(kept)
        if self._events is not None:
            self._events.close()
        self._events = EventFile(self.path / "tensorboard", to_plain(self.config), num_kept=len(kept))

    def save(self, step: int, state: Mapping[str, Any], best_step: int | None) -> None:
        """Writes a checkpoint and rotates older ones away."""
        if self.world.is_main:
            metrics = self.path / "metrics.jsonl"
            if metrics.exists():  # a checkpoint's steps have their lines on the disk
                with metrics.open("rb") as file:
                    os.fsync(file.fileno())
            checkpoint.save(self.path, step, state, project=self.config.project, best_step=best_step)
            retention.rotate(self.path, self.config.keep, [] if best_step is None else [best_step])
        note_saved(f"step {step} is saved; continue with --resume {shlex.quote(str(self.path))}")

    def summarize(self, numbers: Mapping[str, Any]) -> None:
        """Writes summary.json, the sign that the run is complete, and releases the folder.

        numbers: results by name; the seconds since the program started, its peak memory and device_use are added.
        """
        if self.world.is_main:
            cost = {"seconds": round(time.perf_counter() - self.began, 1), **peak_memory(), **self.device_use}
            write_json(self.path / "summary.json", {"config": to_plain(self.config), **numbers, **cost})
            if self._events is not None:
                self._events.add_images(self.path / "plots")
                self._events.close()
            os.close(self._lock)
        note_saved(f"the run is complete: {self.path}")

    def report(self, results: Mapping[str, str], next_step: str | None = None) -> None:
        """Prints the end of a training: results by name, where everything is, and what to run next.

        next_step: in place of the export's command.
        """
        plots = ", ".join(sorted(path.name for path in (self.path / "plots").glob("*.png")))
        lines = {
            **results,
            "run folder": f"{self.path}  (metrics.jsonl, summary.json, checkpoints/)",
            "plots": f"{self.path}/plots: {plots}",
            "TensorBoard": f"tensorboard --logdir {shlex.quote(str(self.path))}",
            "next": next_step or f"python -m projects.{self.config.project}.export {shlex.quote(str(self.path))}",
        }
        self.say("\n" + "\n".join(f"{name:<14} {text}" for name, text in lines.items()))

    def says_complete(self) -> bool:
        """Whether a resumed run has nothing left to do; prints so."""
        if self.resumed and self.is_complete:
            self.say(f"already complete: {self.path}")
            return True
        return False

    def say(self, text: str) -> None:
        """Prints text, once for all ranks; control characters are shown as escapes."""
        if self.world.is_main:
            print(visible(text), flush=True)

    def say_all(self, notes: Iterable[str]) -> None:
        """Prints notes about the data, a line each, with control characters of foreign names made visible."""
        for note in notes:
            self.say(f"note: {printable(note)}")

    def note(self, text: str) -> None:
        """Prints on standard error what the user has to know of this run, once for all ranks."""
        if self.world.is_main:
            print(printable(f"note: {text}"), file=sys.stderr)

    @property
    def is_complete(self) -> bool:
        """Whether all of what the settings ask for is done."""
        path = self.path / "summary.json"
        if not path.exists():
            return False
        summary = read_json(path, "not a summary", "delete it; the run is then finished again")
        return is_summed_up(summary, to_plain(self.config))

    def _create(self) -> None:
        """Writes run.json into an empty folder."""
        body = {
            "format": FORMAT,
            "project": self.config.project,
            "config": to_plain(self.config),
            "facts": to_plain(self.facts),
            "environment": {**environment(self.world), **self.environment},
            "launcher": distributed.launcher(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "history": [],
        }
        with readable_errors(self.path):
            write_json(self.path / "run.json", body)

    def _reopen(self) -> None:
        """Checks that run.json is of this project and this data, and records what is different this time."""
        refuse_links(self.path)
        body = read_run(self.path, self.config.project)
        for name, value in json.loads(json.dumps(to_plain(self.facts))).items():
            if body["facts"].get(name) != value:
                where = f"{name} in {self.path}"
                raise UserError("the data is not what the run began with", where, "give the old data")
        now, then = {**environment(self.world), **self.environment}, body["environment"]
        watched = ("torch", "threads", "ranks", "processor", "kernels")
        changed = [name for name in watched if name in then and now.get(name) != then[name]]
        for name in changed:
            self.note(f"{name} was {then[name]}, is {now.get(name)}; the run goes on, but not bit for bit as before")
        config = to_plain(self.config)
        if config != body["config"] or changed:
            body["history"].append({"time": datetime.now(UTC).isoformat(), "config": config, "environment": now})
            body["config"] = config
            write_json(self.path / "run.json", body)


def _launched_before(project: str) -> Path | None:
    """The run that this same torchrun began before a rank was lost."""
    for path in sorted(Path("runs", project).glob("*/run.json"), key=lambda p: p.stat().st_mtime, reverse=True):
        with contextlib.suppress(UserError):
            if read_json(path, "not a run", "").get("launcher") == distributed.launcher():
                return path.parent
    return None


def _unused_path(project: str) -> Path:
    """runs/<project>/<date>-<n> with the first n that is free."""
    parent, date = Path("runs", project), time.strftime("%Y-%m-%d")
    number = 1
    while (parent / f"{date}-{number}").exists():
        number += 1
    return parent / f"{date}-{number}"
