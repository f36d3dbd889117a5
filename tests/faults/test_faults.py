"""A small round of the fault harness on the toy training and all hostile files, and planted faults that it has to find.

`python -m tests.faults --minutes N` does the same for as long as one likes, with all projects.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core import checkpoint, retention
from core.run import RunFolder
from tests.faults.canaries import canaries_trial
from tests.faults.disk import disk_trial, small_disk_trial
from tests.faults.hostile import HOSTILE
from tests.faults.ledger import markdown
from tests.faults.leftovers import leftovers_trial
from tests.faults.programs import TOY, Program, load
from tests.faults.storm import storm_trial
from tests.faults.tally import Tally

NUM_TRIALS = 3
Trial = Callable[[Program, int, Path, Tally], None]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return load(TOY, 0, tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("trial", [storm_trial, disk_trial, small_disk_trial, leftovers_trial])
def test_nothing_is_lost_or_unequal(trial: Trial, program: Program, tmp_path: Path) -> None:
    tally = Tally()
    for number in range(NUM_TRIALS):
        trial(program, number, tmp_path, tally)
    assert not tally.num_wrong, tally.cases
    if not tally.tried:
        pytest.skip("no file system in memory may be mounted here")
    assert sum(tally.tried.values()) >= NUM_TRIALS


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_touches_nothing_outside(name: str, tmp_path: Path) -> None:
    tally = Tally()
    canaries_trial(name, tmp_path / "canaries", tally)
    assert not tally.num_wrong, tally.cases


# Planted faults are found


def test_a_storm_finds_lines_of_metrics_that_stand_twice(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "cut_metrics", lambda self, num_lines: None)
    tally = Tally()
    for number in range(20):
        if not tally.wrong["unequal"]:
            storm_trial(program, number, tmp_path, tally)
    assert tally.wrong["unequal"]


def test_a_storm_finds_checkpoints_that_go_too_early(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "rotate", lambda run_dir, *_: shutil.rmtree(checkpoint.folders(run_dir)[-1]))
    tally = Tally()
    for number in range(20):
        if not tally.wrong["lost"]:
            storm_trial(program, number, tmp_path, tally)
    assert tally.wrong["lost"]


def test_a_failing_disk_finds_errors_that_are_not_said(program: Program, tmp_path: Path) -> None:
    def main(argv: list[str]) -> None:
        try:
            program.main(argv)
        except Exception as error:
            raise KeyError("of the planted fault") from error

    tally = Tally()
    disk_trial(replace(program, main=main), 0, tmp_path, tally)
    assert tally.wrong["others"]


def test_a_canary_that_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(inside: Path, outside: Path) -> Callable[[], object]:
        (inside / "link").symlink_to(outside / "canary")
        return lambda: (inside / "link").read_text()

    def start(inside: Path, outside: Path) -> Callable[[], object]:
        return lambda: os.system("true")

    for name, planted in {"a link": write, "a program": start}.items():
        monkeypatch.setitem(HOSTILE, name, planted)
        tally = Tally()
        canaries_trial(name, tmp_path / "canaries", tally)
        assert tally.wrong["others"]


# The README


def test_the_table_is_the_stored_one() -> None:
    text = (Path(__file__).parent / "README.md").read_text("utf-8")
    found = re.search(r"<!-- faults[^\n]*-->\n(.*?)\n?<!-- end of faults -->", text, flags=re.DOTALL)
    assert found is not None
    assert found.group(1) == markdown()
