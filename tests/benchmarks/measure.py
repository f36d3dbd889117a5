"""Measuring on a machine that others use: sides run in turns, A B C A B C, and each round gives one ratio.

A slow spell of the machine then falls on all sides of a round, and the median of the rounds' ratios hardly moves.
A result is a table on the terminal and a JSON file with what it depends on: command, date, versions, processor,
threads, commit.
"""

import argparse
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from core.distributed import World
from core.environment import environment
from core.files import write_atomically

FORMAT = 1
PEERS = ("accelerate", "lightning", "pytorch-lightning")
Numbers = Mapping[str, float]  # one measurement: named quantities of one side in one round
Side = Callable[[], Numbers]


def interleaved(sides: Mapping[str, Side], rounds: int) -> dict[str, list[Numbers]]:
    """Measures every side once a round; each second round goes backwards, so that no side always follows another."""
    found: dict[str, list[Numbers]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            gc.collect()
            found[name].append(sides[name]())
    return found


def summarize(found: Mapping[str, Sequence[Numbers]], baseline: str) -> list[dict[str, Any]]:
    """A row for each side: median and quartiles of every quantity, and of its ratio to the baseline in each round."""
    rows = []
    for name, rounds in found.items():
        row: dict[str, Any] = {"name": name, "rounds": len(rounds)}
        for quantity in rounds[0]:
            values = [numbers[quantity] for numbers in rounds]
            pairs = zip(values, found[baseline], strict=True)
            ratios = [value / base[quantity] for value, base in pairs if base.get(quantity)]
            row[quantity] = quartiles(values)
            row[f"{quantity}_ratio"] = quartiles(ratios) if ratios else None
        rows.append(row)
    return rows


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median, and the lower and upper quartile."""
    low, median, high = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def show(title: str, rows: Sequence[Mapping[str, Any]], quantities: Mapping[str, str], baseline: str) -> None:
    """Prints the rows. quantities: names in the rows, with the heading of their column."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        f"medians of {rows[0]['rounds']} rounds (quartiles); × is the ratio to “{baseline}” of the same round"
    )
    table.add_column("side", no_wrap=True)
    for heading in quantities.values():
        table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("×", justify="right", no_wrap=True)
    for row in rows:
        cells = [text for name in quantities for text in (spread(row.get(name)), spread(row.get(f"{name}_ratio"), 2))]
        table.add_row(row["name"], *cells)
    width = None if sys.stdout.isatty() else 170
    Console(width=width, highlight=False).print(table)


def spread(numbers: Mapping[str, float] | None, digits: int | None = None) -> str:
    """A median with its quartiles; digits after the point follow the size where they are not given."""
    if numbers is None:
        return "–"
    if digits is None:
        digits = max(0, 2 - int(np.floor(np.log10(max(abs(numbers["median"]), 1e-3)))))
    median, low, high = (f"{numbers[key]:,.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}–{high})"


def parser(benchmark: str, description: str, rounds: int) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    made = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.bench_{benchmark}", description=description)
    made.add_argument("--rounds", type=int, default=rounds, help="turns of all sides (default: %(default)s)")
    made.add_argument("--threads", type=int, default=1, help="threads of torch and onnxruntime (default: %(default)s)")
    made.add_argument("--output", type=Path, help="where to write the JSON result")
    return made


def write(
    benchmark: str,
    argv: Sequence[str] | None,
    arguments: argparse.Namespace,
    tables: Mapping[str, Any],
    skipped: Mapping[str, str] | None = None,
    **facts: Any,
) -> None:
    """Writes the result where --output says; skipped: sides that were not measured, with the reason."""
    for name, reason in (skipped or {}).items():
        print(f"skipped: {name}: {reason}")
    if arguments.output is None:
        return
    settings = {key: value for key, value in vars(arguments).items() if not isinstance(value, Path | None)}
    body = {
        "format": FORMAT,
        "benchmark": benchmark,
        "command": command(benchmark, sys.argv[1:] if argv is None else argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": {**where(), "load": os.getloadavg()[0]},
        "settings": settings,
        "tables": tables,
        "skipped": dict(skipped or {}),
        **facts,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.output, json.dumps(body, indent=1).encode())


def command(benchmark: str, argv: Sequence[str]) -> str:
    """The command line without paths of this machine and the flags that they belong to."""
    kept: list[str] = []
    for word in argv:
        if os.sep not in word:
            kept.append(word)
        elif not word.startswith("--"):
            kept.pop()
    return " ".join([f"python -m tests.benchmarks.bench_{benchmark}", *kept])


def where() -> dict[str, Any]:
    """Versions, machine and commit, with those of the peers that are installed."""
    found = {key: value for key, value in environment(World()).items() if key != "command"}
    for name in PEERS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def use_threads(num: int) -> None:
    """Sets the number of torch's threads; with a busy second core, two make small work hundreds of times slower."""
    torch.set_num_threads(num)


def clocks() -> tuple[float, float, int]:
    """Processor time and wall time in seconds, and page faults, of this process so far."""
    return time.process_time(), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class StepClock:
    """Reads the clocks as batches are handed out: it begins with batch `warmup` and ends `steps` batches later.

    So it times that many whole turns of whatever loop takes the batches, with all that the loop does between two of
    them, and nothing of what comes before the first or after the last.
    """

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps, self.handed_out = warmup, steps, 0
        self._began = self._ended = (0.0, 0.0, 0)

    @property
    def num_batches(self) -> int:
        """Batches that have to be served."""
        return self.warmup + self.steps + 1

    def tick(self) -> None:
        """Notes that a batch is about to be handed out."""
        if self.handed_out == self.warmup:
            self._began = clocks()
        elif self.handed_out == self.warmup + self.steps:
            self._ended = clocks()
        self.handed_out += 1

    def seconds(self) -> tuple[float, float]:
        """Processor time and wall time of all measured steps together."""
        if self.handed_out <= self.warmup + self.steps:
            raise RuntimeError(f"{self.handed_out} batches were taken, {self.num_batches} are needed")
        return self._ended[0] - self._began[0], self._ended[1] - self._began[1]

    def page_faults(self) -> int:
        """How often memory was given to this process anew in the measured steps."""
        return self._ended[2] - self._began[2]

    def microseconds_per_step(self) -> dict[str, float]:
        """Both times of one step, in microseconds."""
        processor, wall = self.seconds()
        return {"processor_us": 1e6 * processor / self.steps, "wall_us": 1e6 * wall / self.steps}
