"""Runs beside each other: grouped where they differ only in their seed, as a table and as data. Loads no torch."""

import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from core.errors import UserError, printable
from core.results import shown_command, spread
from core.run_record import Goal, RunRecord

_MAX_METRICS = 4  # that the table shows where none are named
_MACHINE = ("processor", "gpu", "threads", "ranks", "torch")


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed. settings: those in which the groups differ, as text."""

    settings: Mapping[str, str]
    runs: tuple[RunRecord, ...]

    @property
    def name(self) -> str:
        """What tells it from the other groups."""
        return ", ".join(f"{name} {value}" for name, value in self.settings.items()) or "all runs"

    def numbers(self, metrics: Iterable[str]) -> dict[str, list[float]]:
        """Each run's numbers: metrics at the best and the last step, speed, time, memory; only those that are there."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            costs = {"samples/s": run.samples_per_second, "seconds": max(run.elapsed.values(), default=None)}
            numbers: dict[str, float | None] = {}
            for name in metrics:
                values = run.values(name)
                numbers[f"best {name}"] = values.get(run.best_step or 0)
                numbers[f"last {name}"] = list(values.values())[-1] if values else None
            for name, number in {**numbers, **costs, "peak MB": run.peak_memory_mb}.items():
                if number is not None:
                    found.setdefault(name, []).append(number)
        return found


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, the best first. notes: what a reader has to know of them, a line each."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, records: Sequence[RunRecord], *, allow_different_data: bool = False, ignored: Sequence[str] = ()
    ) -> "Comparison":
        """ignored: settings that do not tell runs apart, such as a file of each seed's own.

        Raises UserError for runs of different projects, or of different data where that is not allowed, and for a
        setting that no run has.
        """
        first = records[0]
        for record in records:
            if record.body["project"] != first.body["project"]:
                where = f"{first.path} of {first.body['project']}, {record.path} of {record.body['project']}"
                raise UserError("runs of different projects", where, "compare those of one project")
        for record, other in itertools.combinations(records, 2):
            if not (allow_different_data or _are_of_equal_data(record, other)):
                where = f"{record.path} and {other.path} (data_sha256 in run.json)"
                raise UserError("runs of different data", where, "compare them with --allow-different-data")
        found = [_settings(record) for record in records]
        names = list(dict.fromkeys(name for settings in found for name in settings))
        for name in ignored:
            if name not in names:
                raise UserError("no such setting", f"--ignore {name}", f"choose from {', '.join(names)}")
        compared = [name for name in names if name not in ignored]
        differing = [name for name in compared if len({settings.get(name, "–") for settings in found}) > 1]
        members: dict[tuple[str, ...], list[RunRecord]] = {}
        for record, settings in zip(records, found, strict=True):
            members.setdefault(tuple(settings.get(name, "–") for name in differing), []).append(record)
        groups = [Group(dict(zip(differing, key, strict=True)), tuple(runs)) for key, runs in members.items()]
        made = cls(tuple(groups), tuple(_notes(records)))
        return cls(tuple(sorted(groups, key=made._rank)), made.notes)

    @cached_property
    def runs(self) -> list[RunRecord]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    @property
    def goal(self) -> Goal | None:
        """What all runs are judged by; None where they do not say it, or not the same."""
        goals = {run.goal for run in self.runs}
        return goals.pop() if len(goals) == 1 else None

    def metrics(self, wanted: Sequence[str] = ()) -> list[str]:
        """The names of metrics that are shown: those wanted, or some of the validation, what the runs are judged by
        first. Raises UserError for one that no run has."""
        there = list(dict.fromkeys(name for run in self.runs for name in run.names))
        for name in wanted:
            if name not in there:
                raise UserError("no such metric", f"--metric {name}", f"choose from {', '.join(there) or 'none'}")
        first = [self.goal.name] if self.goal is not None else []
        others = [name for name in there if name.startswith("val/") and name not in first]
        return list(wanted) or [*first, *others][:_MAX_METRICS]

    def table(self, metrics: Sequence[str]) -> list[list[str]]:
        """Rows of text, the heading first: what differs, then mean ± spread of each number."""
        numbers = [group.numbers(metrics) for group in self.groups]
        columns = list(dict.fromkeys(name for found in numbers for name in found))
        columns.sort(key=lambda name: ("best", "last").index(name[:4]) if name[:4] in ("best", "last") else 2)
        states = [_state(group.runs) for group in self.groups]
        heading = [*self.groups[0].settings, *columns, "runs", "state"]
        rows = [
            [*group.settings.values(), *(_shown(found.get(name, [])) for name in columns), str(len(group.runs)), state]
            for group, found, state in zip(self.groups, numbers, states, strict=True)
        ]
        end = None if any(states) else -1
        return [[printable(cell) for cell in row[:end]] for row in [heading, *rows]]

    def data(self, metrics: Sequence[str]) -> dict[str, Any]:
        """Everything as plain data for JSON: commands, seeds, each number with mean and spread, machine, versions."""
        first = self.runs[0].body
        return {
            "project": first["project"],
            "goal": None if self.goal is None else self.goal._asdict(),
            "data_sha256": sorted({str(_data_of(run)) for run in self.runs}),
            "groups": [_group_data(group, metrics) for group in self.groups],
            "environment": {name: value for name, value in first["environment"].items() if name != "command"},
            "notes": list(self.notes),
        }

    def _rank(self, group: Group) -> float:
        """Sorts groups, the best first; those without a number last."""
        if self.goal is None:
            return 0.0
        values = group.numbers([self.goal.name]).get(f"best {self.goal.name}")
        sign = -1.0 if self.goal.larger_is_better else 1.0
        return sign * statistics.fmean(values) if values else float("inf")


def _data_of(record: RunRecord) -> Any:
    """What tells a run's data from others."""
    return record.body["facts"].get("data_sha256")


def _are_of_equal_data(record: RunRecord, other: RunRecord) -> bool:
    """Whether two runs have the same data, or data that was generated from seeds of their own."""
    are_generated = record.config.get("data") == other.config.get("data") == "synthetic"
    differ_in_seed = record.config.get("seed") != other.config.get("seed")
    return _data_of(record) == _data_of(other) or (are_generated and differ_in_seed)


def _settings(record: RunRecord) -> dict[str, str]:
    """What may tell a run from others, as text: its settings, its model, which "auto" leaves open, and its data."""
    settings = {name: value for name, value in record.config.items() if name not in ("seed", "data")}
    model = record.body["facts"].get("model", settings.get("model"))
    data = record.config.get("data")
    data = data if data == "synthetic" else str(_data_of(record))[:8]
    found = {**settings, **({} if model is None else {"model": model}), "data": data}
    found = {name: "none" if value is None else value for name, value in found.items()}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def _notes(records: Sequence[RunRecord]) -> Iterable[str]:
    """What has to be known of runs: broken files, other machines, other code."""
    for record in records:
        yield from record.notes
    if (num := len({_data_of(record) for record in records})) > 1:
        yield f"the runs are of {num} different data (data_sha256 in run.json)"
    first = records[0].body["environment"]
    for name in _MACHINE:
        if any(record.body["environment"].get(name) != first.get(name) for record in records):
            yield f"the runs differ in {name}: samples/s, seconds and memory do not compare"
    if any(record.body["environment"].get("commit") != first.get("commit") for record in records):
        yield "the runs were made by different commits of the code"


def _state(runs: Sequence[RunRecord]) -> str:
    """What is to say of runs that are not complete."""
    open_ones = [f"{run.status} at step {run.last_step}" for run in runs if run.status != "complete"]
    return "; ".join(open_ones)


def _shown(values: Sequence[float]) -> str:
    """A mean with its spread."""
    if not values:
        return "–"
    mean = _rounded(statistics.fmean(values), 4)
    return f"{mean} ± {_rounded(spread(values), 2)}" if len(values) > 1 else mean


def _rounded(value: float, digits: int) -> str:
    """A number with some digits, without an exponent where it is large."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _group_data(group: Group, metrics: Sequence[str]) -> dict[str, Any]:
    """A group as plain data."""
    numbers = group.numbers(metrics)
    return {
        "settings": dict(group.settings),
        "command": shown_command(group.runs[0].body),
        "seeds": [run.config.get("seed") for run in group.runs],
        "runs": [run.path.name for run in group.runs],
        "states": [run.status for run in group.runs],
        "numbers": {
            name: {"values": values, "mean": statistics.fmean(values), "spread": spread(values)}
            for name, values in numbers.items()
        },
    }


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """A table with columns of equal width."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    heading, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heading, ["---"] * len(heading), *others])
