"""A run folder as it stands on the disk, whether the run is finished, still running or broken. Loads no torch.

The programs that look at runs (compare, sweep, track) read them here; what needs a run's weights uses stored_run.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.errors import UserError
from core.files import read_json
from core.folder_lock import is_locked
from core.text_files import open_regular

FORMAT = 2
_LENGTH_SETTINGS = ("epochs", "max_steps", "patience")  # what tells whether a run has done all that was asked
Status = Literal["complete", "running", "unfinished"]


class Goal(NamedTuple):
    """The number of the validation that a run is judged by, as fit's Monitor names it."""

    name: str
    larger_is_better: bool

    def best_of(self, values: list[float]) -> int:
        """The index of the best value; of equal ones the last, as fit has it."""
        keys = [value if self.larger_is_better else -value for value in values]
        return max(range(len(keys)), key=lambda index: (keys[index], index))


@dataclass(frozen=True)
class RunRecord:
    """A run as its files tell it.

    body: run.json. lines: of metrics.jsonl, each with "step". summary: summary.json, None where it is not there.
    notes: what is wrong with its files.
    """

    path: Path
    body: Mapping[str, Any]
    lines: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """The settings."""
        return dict(self.body["config"])

    @property
    def goal(self) -> Goal | None:
        """What the run is judged by; None where run.json does not say it."""
        monitor = self.body.get("monitor")
        return Goal(f"val/{monitor['name']}", bool(monitor["larger_is_better"])) if isinstance(monitor, dict) else None

    @property
    def status(self) -> Status:
        """Whether the run has done all that its settings ask for, is in the hands of a process, or neither."""
        if is_summed_up(self.summary, self.config):
            return "complete"
        return "running" if is_locked(self.path) else "unfinished"

    @property
    def last_step(self) -> int:
        """The step of the last line of metrics; 0 without one."""
        return int(self.lines[-1]["step"]) if self.lines else 0

    @property
    def best_step(self) -> int | None:
        """The step whose weights are best in validation; None where that is not known."""
        if self.goal is None:
            step = (self.summary or {}).get("best_step")
            return step if isinstance(step, int) else None
        values = self.values(self.goal.name)
        return list(values)[self.goal.best_of(list(values.values()))] if values else None

    @property
    def names(self) -> list[str]:
        """The names of all numbers in train/ and val/, those of the validation first."""
        names = {name: None for line in self.lines for name in line if name.startswith(("train/", "val/"))}
        return sorted(names, key=lambda name: not name.startswith("val/"))

    def values(self, name: str) -> dict[int, float]:
        """A number of the metrics by step, without values that are not finite."""
        found = {line["step"]: line[name] for line in self.lines if is_finite(line.get(name))}
        return dict(sorted(found.items()))

    @property
    def elapsed(self) -> dict[int, float]:
        """Seconds in the training loop up to each step, evaluations included, over all processes that worked on it."""
        found: dict[int, float] = {}
        earlier = before = 0.0
        for line in self.lines:
            if is_finite(line.get("seconds")):
                now = float(line["seconds"])
                earlier += before if now < before else 0.0  # another process began to count anew
                before = now
                found[line["step"]] = earlier + now
        return found

    @property
    def samples_per_second(self) -> float | None:
        """The rate of the last process, evaluations included."""
        rates = [line["samples_per_second"] for line in self.lines if is_finite(line.get("samples_per_second"))]
        return rates[-1] if rates else None

    @property
    def peak_memory_mb(self) -> float | None:
        """The most memory that the run held: the device's where it computed on one, the process's otherwise."""
        summary = self.summary or {}
        peak = summary.get("peak_device_memory_mb", summary.get("peak_memory_mb"))
        return float(peak) if is_finite(peak) else None


def read_records(paths: Sequence[Path]) -> list[RunRecord]:
    """Reads run folders. Raises UserError for one that is given twice, is none, or whose run.json is broken."""
    places = [path.resolve() for path in paths]
    for number, path in enumerate(paths):
        if places[number] in places[:number]:
            raise UserError("a run is given twice", path, "give each run once")
    return [read_record(path) for path in paths]


def read_record(path: Path) -> RunRecord:
    """Reads a run folder. Raises UserError for a folder that is none, or whose run.json is broken."""
    body = read_run(path)
    if not all(isinstance(body.get(name), dict) for name in ("config", "facts", "environment")):
        raise UserError("not a run of this version", path / "run.json", "give a folder that a train program made")
    notes: list[str] = []
    try:
        there = (path / "summary.json").exists()
        summary = read_json(path / "summary.json", "not a summary", "the run counts as unfinished") if there else None
    except UserError as error:
        summary = None
        notes.append(str(error))
    return RunRecord(path, body, tuple(_read_metrics(path / "metrics.jsonl", notes)), summary, tuple(notes))


def read_run(path: Path, project: str | None = None) -> dict[str, Any]:
    """run.json of a run. Raises UserError for a folder that is none, another project's, or a newer format's."""
    body = read_json(path / "run.json", "not a run folder", "give a folder that a train program made")
    if body.get("format") != FORMAT:
        raise UserError("another format of run", f"{path}: {body.get('format')}", f"this version reads format {FORMAT}")
    if project is not None and body.get("project") != project:
        raise UserError("a run of another project", path, f"it was made by projects.{body.get('project')}")
    return body


def is_summed_up(summary: Mapping[str, Any] | None, config: Mapping[str, Any]) -> bool:
    """Whether a summary is of a run of the length that the settings ask for."""
    done = (summary or {}).get("config")
    return isinstance(done, dict) and all(done.get(name) == config.get(name) for name in _LENGTH_SETTINGS)


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _read_metrics(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl but a half-written last one; adds to notes which lines cannot be read."""
    try:
        with open_regular(path) as file:
            *whole, _ = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        notes.append(f"metrics.jsonl cannot be read: {path} ({(error.strerror or str(error)).lower()})")
        return []
    lines, broken = [], []
    for number, text in enumerate(whole, start=1):
        try:
            line = json.loads(text)
            assert isinstance(line["step"], int)
            assert abs(line["step"]) < 2**63
        except (ValueError, TypeError, KeyError, AssertionError, RecursionError):
            broken.append(str(number))
        else:
            lines.append(line)
    if broken:
        notes.append(f"{len(broken)} lines of metrics.jsonl cannot be read: {path}, line {', '.join(broken[:5])}")
    return lines
