"""The ledger takes complete runs that differ only in their seed, and says what they depend on."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.results import collect, shown_command, spread, table


def make_run(folder: Path, seed: int, accuracy: float, **settings: Any) -> Path:
    """A run folder with what the ledger reads."""
    folder.mkdir()
    words = ["train.py", "--data", "/somewhere/pictures", "--seed", str(seed), "--run-dir", str(folder), "--lr", "0.1"]
    environment = {
        "command": words,
        "commit": "c0ffee",
        "processor": "Z80, 1 cores",
        "gpu": None,
        "threads": 1,
        "torch": "2.11",
        "python": "3.11",
    }
    run = {
        "project": "any",
        "config": {"seed": seed, "data": "/somewhere/pictures", "lr": 0.1, **settings},
        "facts": {"model": "fast"},
        "environment": environment,
    }
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    summary = {"config": {}, "test_accuracy": accuracy, "seconds": 10}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def test_seeds_become_mean_and_spread_with_the_command_but_no_private_path(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(seed), seed, accuracy) for seed, accuracy in enumerate((0.5, 0.6, 0.7))]
    result = collect(runs, "pictures", {"test_accuracy": ".2f"})
    assert result["command"] == "python -m projects.any.train --data DIR --seed SEED --lr 0.1"
    assert result["seeds"] == [0, 1, 2]
    assert result["numbers"]["test_accuracy"]["mean"] == pytest.approx(0.6)
    assert result["numbers"]["test_accuracy"]["spread"] == pytest.approx(0.1)
    assert str(tmp_path) not in json.dumps(result)
    assert "somewhere" not in json.dumps(result)
    shown = table([result])
    assert shown.endswith(f"- pictures: `{result['command']}`")
    row = "| pictures | test accuracy 0.60 ± 0.10 | 10 (1), 10 (1), 10 (1) | 0, 1, 2 |"
    assert f"{row} Z80, 1 cores; python 3.11, torch 2.11 |" in shown


def test_runs_with_other_settings_are_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", 0, 0.5), make_run(tmp_path / "b", 1, 0.5, lr=0.2)]
    with pytest.raises(UserError, match="differ in more than their seed"):
        collect(runs, "pictures", {})


def test_a_number_that_no_summary_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such number: --show speed; choose from test_accuracy, seconds"):
        collect([make_run(tmp_path / "a", 0, 0.5)], "pictures", {"speed": ".2f"})


def test_an_unfinished_run_is_refused_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 0, 0.5)
    (run / "summary.json").unlink()
    with pytest.raises(UserError, match=r"not a complete run: .*summary\.json"):
        collect([run], "pictures", {})


def test_a_dataset_that_has_a_name_keeps_it() -> None:
    run = {"project": "any", "environment": {"command": ["train.py", "--data", "synthetic"]}}
    assert shown_command(run) == "python -m projects.any.train --data synthetic"


def test_one_value_has_no_spread() -> None:
    assert spread([0.5]) == 0.0
