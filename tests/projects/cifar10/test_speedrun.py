"""A speedrun gives each run its own seed, and the same seed the same accuracy."""

import json
from pathlib import Path

import pytest

from core.errors import UserError
from projects.cifar10.speedrun import main, parse
from tests import forked

TINY = ["--data", "digits", "--image-size", 16, "--epochs", 3, "--model", "fast", "--device", "cpu"]


def test_each_run_has_its_seed_and_the_same_command_the_same_accuracies(tmp_path: Path) -> None:
    found = []
    for number in range(2):
        path = tmp_path / f"{number}.json"
        assert forked.run(main, [*TINY, "--precision", "fp32", "--runs", 2 - number, "--output", path]) == 0
        found.append({run["seed"]: run["accuracy"] for run in json.loads(path.read_bytes())["runs"]})
        assert str(tmp_path) not in path.read_text("utf-8")
    assert sorted(found[0]) == [0, 1]
    assert found[1] == {0: found[0][0]}
    assert min(found[0].values()) > 0.8


def test_what_a_speedrun_does_not_do_is_refused() -> None:
    with pytest.raises(UserError, match="--profile"):
        parse(["--profile"])
