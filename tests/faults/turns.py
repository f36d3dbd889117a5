"""The five parts of the harness: what each tries in one turn, for each of its rows."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.faults.canaries import canaries_trial
from tests.faults.disk import disk_trial, small_disk_trial
from tests.faults.fuzzing import fuzz
from tests.faults.hostile import HOSTILE
from tests.faults.leftovers import leftovers_trial
from tests.faults.parsers import PARSERS
from tests.faults.programs import NAMES, Program, load
from tests.faults.storm import storm_trial
from tests.faults.tally import Tally

_INPUTS_OF_A_BLOCK = 1000
Block = Callable[[str, int, Path, Tally], None]


@dataclass(frozen=True)
class Part:
    """rows: what it is about, such as the programs. block: tries what a number stands for, for a row. unit, goal: what
    of the tried things is counted, and how many of them are wanted for each row. last: numbers below it exist."""

    rows: Sequence[str]
    block: Block
    unit: str
    goal: int
    last: int = sys.maxsize


@cache
def _program(name: str, kind: int, folder: Path) -> Program:
    return load(name, kind, folder)


def _storm(name: str, number: int, folder: Path, tally: Tally) -> None:
    storm_trial(_program(name, number % 2, folder), number, folder, tally)


def _disk(name: str, number: int, folder: Path, tally: Tally) -> None:
    trial = (disk_trial, disk_trial, small_disk_trial)[number % 3]
    trial(_program(name, number % 2, folder), number, folder, tally)


def _leftovers(name: str, number: int, folder: Path, tally: Tally) -> None:
    leftovers_trial(_program(name, number % 2, folder), number, folder, tally)


def _canaries(name: str, number: int, folder: Path, tally: Tally) -> None:
    canaries_trial(name, folder / "canaries", tally)


def _fuzz(name: str, number: int, folder: Path, tally: Tally) -> None:
    first = number * _INPUTS_OF_A_BLOCK
    report = fuzz(name, range(first, first + _INPUTS_OF_A_BLOCK), folder / "fuzzed")
    tally.tried["inputs"] += report.inputs
    tally.tried["refused"] += report.refused
    for kind, count in report.others.items():
        tally.add("others", f"{name}: {kind}, first with input {report.first[kind]}", count)


PARTS = {
    "canaries": Part(tuple(HOSTILE), _canaries, "hostile files", 1, last=1),
    "fuzz": Part(tuple(PARSERS), _fuzz, "inputs", 50_000),
    "storm": Part(NAMES, _storm, "kills", 143),
    "disk": Part(NAMES, _disk, "failing disks", 30),
    "leftovers": Part(NAMES, _leftovers, "folders", 30),
}
