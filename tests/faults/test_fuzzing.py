"""Files from elsewhere are read, or refused by name: a hundred changed ones of each kind here, more by hand.

`python -m tests.faults --minutes N` tries as many as the time allows and stores the count.
"""

from pathlib import Path

import pytest
import torch

from tests.faults.fuzzing import fuzz
from tests.faults.parsers import PARSERS


@pytest.mark.parametrize("name", PARSERS)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    PARSERS[name].seeds(tmp_path)
    PARSERS[name].read(tmp_path)


@pytest.mark.parametrize("name", PARSERS)
def test_changed_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    report = fuzz(name, range(100), tmp_path / "work")
    assert report.inputs == 100
    assert report.refused > 0
    assert not report.others, report.first
