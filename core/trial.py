"""One trial of a sweep: its runs, one a seed, each a process of the train program, followed by their metrics.

The process that works on a trial holds the lock of its claim. Where that process dies, the system opens the lock, and
whoever goes on with the sweep takes the trial over and resumes its run.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from core.errors import RunError, printable
from core.folder_lock import is_locked
from core.run_record import RunRecord, read_record

_SECONDS_TO_SAVE = 120.0  # before a process that was asked to leave is killed


class Outcome(NamedTuple):
    """How a trial ended. value: what the study minimizes: the goal's best value, negative where larger is better."""

    state: Literal["complete", "pruned", "failed"]
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Place:
    """Where the runs of a sweep's trials are. seeds: of the runs of every trial."""

    folder: Path
    seeds: tuple[int, ...]

    def run_dir(self, number: int, seed: int) -> Path:
        """The folder of a trial's run."""
        name = str(number) if len(self.seeds) == 1 else f"{number}-seed-{seed}"
        return self.folder / "trials" / name

    def records(self, number: int) -> list[RunRecord]:
        """A trial's runs as far as they have begun."""
        paths = [self.run_dir(number, seed) for seed in self.seeds]
        return [read_record(path) for path in paths if (path / "run.json").exists()]

    def claim(self, number: int | str) -> int | None:
        """The lock of a trial, for this process until it ends; None where another has it."""
        lock = os.open(self.folder / "claims" / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock


class RunningTrial:
    """A trial in the hands of this process.

    trial: optuna's. flags: of the program, without seed and folder. lock: what Place.claim gave. environment: added to
    that of the program. num_reported: evaluations that another process has reported to the trial.
    """

    def __init__(
        self,
        trial: Any,
        place: Place,
        program: str,
        flags: Sequence[str],
        lock: int,
        environment: Mapping[str, str],
        num_reported: int = 0,
    ) -> None:
        self.trial, self._place, self._lock, self._num_reported = trial, place, lock, num_reported
        self._program, self._flags, self._environment = program, list(flags), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._waiting = list(place.seeds)
        self._values: list[float] = []
        self._asked_to_leave = 0.0

    def poll(self) -> Outcome | None:
        """Moves on: reports new evaluations, asks a hopeless run to leave, starts the next one. The end, once it is
        there."""
        path = self._place.run_dir(self.trial.number, self._waiting[0])
        if self._process is None:
            if is_locked(path):  # the run of a sweep that was killed still goes on
                return None
            if _record(path) is None or read_record(path).status != "complete":
                self._start(path)
                return None
        elif self._process.poll() is None:
            self._follow(path)
            return None
        return self._after_run(path)

    def stop(self) -> None:
        """Asks the run to save and leave, waits for it, and opens the claim."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.close()

    def close(self) -> None:
        """Opens the claim."""
        if self._output is not None:
            self._output.close()
        os.close(self._lock)

    def _start(self, path: Path) -> None:
        """Starts the program, or resumes its run."""
        begun = (path / "run.json").exists()
        seed = ["--seed", str(self._waiting[0])] if len(self._place.seeds) > 1 else []
        words = ["--resume", str(path)] if begun else [*self._flags, *seed, "--run-dir", str(path)]
        output = self._place.folder / "output" / f"{path.name}.txt"
        self._output = self._output or output.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._program, *words],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self._environment},
            process_group=0,  # Ctrl-C reaches the sweep alone, which then asks its runs to save
        )

    def _follow(self, path: Path) -> None:
        """Reports the first run's new evaluations; asks it to leave where the pruner calls it hopeless."""
        assert self._process is not None
        if self._asked_to_leave:
            if time.monotonic() > self._asked_to_leave + _SECONDS_TO_SAVE:
                self._process.kill()
            return
        record = _record(path)
        if record is not None and self._report(record) and self.trial.should_prune():
            self._asked_to_leave = time.monotonic()
            self._process.send_signal(signal.SIGTERM)

    def _report(self, record: RunRecord) -> bool:
        """Reports new evaluations of the first seed's run, by which the pruner judges; whether there were any."""
        if self._values:
            return False
        values, before = _signed(record), self._num_reported
        for number in range(before, len(values)):
            self.trial.report(values[number], number + 1)
        self._num_reported = max(before, len(values))
        return len(values) > before

    def _after_run(self, path: Path) -> Outcome | None:
        """What follows the end of a run: the next one, or the trial's end."""
        record = _record(path)
        complete = record is not None and record.status == "complete"
        if record is not None:
            self._report(record)  # of a run that ended since the last look; others are measured by it
        if self._asked_to_leave and not complete:
            return Outcome("pruned", reason=f"after evaluation {self._num_reported}")
        if not complete:
            return Outcome("failed", reason=self._last_line(path))
        assert record is not None
        self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None
        values = _signed(record)
        if not values:
            return Outcome("failed", reason=f"no evaluation of {path} gave a finite number")
        self._values.append(min(values))
        self._waiting.pop(0)
        if self._waiting:
            return None
        value, goal = sum(self._values) / len(self._values), record.goal
        assert goal is not None
        return Outcome("complete", value, f"{goal.name} {-value if goal.larger_is_better else value:.5g}")

    def _last_line(self, path: Path) -> str:
        """What the program said last."""
        text = (self._place.folder / "output" / f"{path.name}.txt").read_text("utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return printable(lines[-1]) if lines else "it said nothing"


def environments(jobs: int) -> list[dict[str, str]]:
    """What each of several trials at a time gets: a GPU of its own where there are as many, and its share of threads
    (OMP_NUM_THREADS, where that is not set)."""
    if jobs == 1:
        return [{}]
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    gpus = _gpus()
    if 0 < len(gpus) < jobs:
        print(f"note: {jobs} trials at a time share {len(gpus)} GPUs", file=sys.stderr)
    return [{**threads, **({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {})} for slot in range(jobs)]


def _gpus() -> list[str]:
    """The GPUs that programs may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip()]
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    return []


def _record(path: Path) -> RunRecord | None:
    """A run's record, once it has begun."""
    return read_record(path) if (path / "run.json").exists() else None


def _signed(record: RunRecord) -> list[float]:
    """The evaluations' values of the goal, negative where larger is better. Raises RunError for a run without."""
    goal = record.goal
    if goal is None:
        if not any(name.startswith("val/") for name in record.names) and record.status != "complete":
            return []
        raise RunError("the program names no number to judge by", record.path, "fit needs a monitor")
    return [-value if goal.larger_is_better else value for value in record.values(goal.name).values()]
