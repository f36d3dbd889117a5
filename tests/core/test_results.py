"""The ledger takes complete runs that differ only in their seed, and says what they depend on."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.results import collect, shown_command, spread, table
from tests.conftest import Program


def make_run(folder: Path, seed: int, accuracy: float, data: str = "c0de", **settings: Any) -> Path:
    """A run folder with what the ledger reads."""
    folder.mkdir()
    words = ["train.py", "--data", "/somewhere/images", "--seed", str(seed), "--run-dir", str(folder), "--lr", "0.1"]
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
        "config": {"seed": seed, "data": "/somewhere/images", "lr": 0.1, **settings},
        "facts": {"model": "fast", "data_sha256": data},
        "environment": environment,
    }
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    summary = {"config": {}, "test_accuracy": accuracy, "seconds": 10}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def test_seeds_become_mean_and_spread_with_the_command_but_no_private_path(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(seed), seed, accuracy) for seed, accuracy in enumerate((0.5, 0.6, 0.7))]
    result = collect(runs, "images", {"test_accuracy": ".2f"})
    assert result["command"] == "python -m projects.any.train --data DIR --seed SEED --lr 0.1"
    assert result["seeds"] == [0, 1, 2]
    assert result["numbers"]["test_accuracy"]["mean"] == pytest.approx(0.6)
    assert result["numbers"]["test_accuracy"]["spread"] == pytest.approx(0.1)
    assert str(tmp_path) not in json.dumps(result)
    assert "somewhere" not in json.dumps(result)
    shown = table([result])
    assert shown.endswith(f"- images: `{result['command']}`")
    assert "| result | test accuracy | seconds (threads) | seeds |" in shown
    assert "| images | 0.60 ± 0.10 | 10 (1), 10 (1), 10 (1) | 0, 1, 2 |" in shown
    assert shown.count("Z80, 1 cores with python 3.11, torch 2.11") == 1


def test_runs_with_other_settings_are_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", 0, 0.5), make_run(tmp_path / "b", 1, 0.5, lr=0.2)]
    with pytest.raises(UserError, match="differ in more than their seed"):
        collect(runs, "images", {})


def test_a_number_that_no_summary_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such number: --show speed; choose from test_accuracy, seconds"):
        collect([make_run(tmp_path / "a", 0, 0.5)], "images", {"speed": ".2f"})


def test_an_unfinished_run_is_refused_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 0, 0.5)
    (run / "summary.json").unlink()
    with pytest.raises(UserError, match=r"not a complete run: .*summary\.json"):
        collect([run], "images", {})


def test_a_dataset_that_has_a_name_keeps_it() -> None:
    run = {"project": "any", "environment": {"command": ["train.py", "--data", "synthetic"]}}
    assert shown_command(run) == "python -m projects.any.train --data synthetic"


def test_one_value_has_no_spread() -> None:
    assert spread([0.5]) == 0.0


def test_runs_of_other_data_and_equal_seeds_are_refused(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "a", 0, 0.5), make_run(tmp_path / "b", 1, 0.5, data="f00d")
    with pytest.raises(UserError, match=r"different data: .*--allow-different-data"):
        collect([run, other], "images", {})
    result = collect([run, other], "images", {}, allow_different_data=True)
    assert (result["seeds"], result["data_sha256"]) == ([0, 1], None)
    with pytest.raises(UserError, match="a seed stands twice"):
        collect([run, run], "images", {})


@pytest.mark.parametrize("show", ["speed:.2f", "test_accuracy:%", "test_accuracy:.4q", "config:.2f", ":"])
def test_a_wrong_show_ends_before_anything_is_written(show: str, tmp_path: Path, program: Program) -> None:
    make_run(tmp_path / "a", 0, 0.5)
    done = program("core.results", tmp_path / "a", "--output", tmp_path / "new" / "r.json", "--show", show)
    assert (done.returncode, done.stderr.count("\n")) == ((2, 1) if show != "test_accuracy:%" else (0, 0))
    assert (tmp_path / "new").exists() == (show == "test_accuracy:%")


@pytest.mark.parametrize(
    "content", ["{}", "[]", "text", '{"name": 3, "show": 4}', '{"show": {"a": ".2f"}, "numbers": {}}']
)
def test_a_file_that_is_no_result_is_named(content: str, tmp_path: Path, program: Program) -> None:
    (tmp_path / "r.json").write_text(content, encoding="utf-8")
    done = program("core.results", tmp_path / "r.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "r.json" in done.stderr


def test_folders_that_are_no_runs_of_this_version_are_named(tmp_path: Path, program: Program) -> None:
    for name in ("run.json", "summary.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    done = program("core.results", tmp_path, "--output", tmp_path / "r.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "r.json").exists()
