"""Files from elsewhere are read, or refused by name: sixty changed ones of each kind here, more by hand.

`python -m tests.faults --only fuzz --minutes N` tries as many as the time allows and stores the count.
"""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.faults import fuzzing
from tests.faults.parsers import PARSERS, Parser

NUM_INPUTS = 60
GOOD_PART_IS_READ = ("metrics.jsonl", "event file")


@pytest.mark.parametrize("name", PARSERS)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    PARSERS[name].seeds(tmp_path)
    PARSERS[name].read(tmp_path)


@pytest.mark.parametrize("name", PARSERS)
def test_changed_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    report = fuzzing.fuzz(name, range(NUM_INPUTS), tmp_path / "work")
    assert report.inputs == NUM_INPUTS
    assert report.refused > 0 or name in GOOD_PART_IS_READ
    assert not report.others, report.first


def test_an_exception_a_hang_and_a_death_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise KeyError

    def wait(folder: Path) -> None:
        while True:
            pass

    def die(folder: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(fuzzing, "SECONDS_FOR_ONE", 0.05)
    for read, kind in ((fail, "KeyError in "), (wait, "longer than "), (die, "died by signal 9")):
        planted = Parser(lambda folder: (folder / "x").write_bytes(b"x"), "x", read)
        monkeypatch.setitem(PARSERS, "planted", planted)
        report = fuzzing.fuzz("planted", range(2), tmp_path / "work")
        assert report.inputs == sum(report.others.values()) == 2
        assert all(other.startswith(kind) for other in report.others)
