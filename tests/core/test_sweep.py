"""A sweep finds the best settings, stops hopeless runs, goes on after a kill, and refuses what its program would."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from core import sweep
from core.errors import UserError
from core.run_record import read_record
from core.search_space import SearchSpace
from tests.conftest import ROOT, Program

pytest.importorskip("optuna", reason="the extra sweep is not installed")


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """core.sweep's main function with a command line."""
    monkeypatch.setattr(sys, "argv", ["sweep.py", *map(str, words)])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    sweep.main()


def best_of(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / "best.json").read_text())
    return body


def test_a_grid_finds_the_best_and_stops_the_hopeless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of five points in order the last is by far the worst, and slow enough to be stopped."""
    folder, words = tmp_path / "a sweep", ["--search", "lr=0.2,0.1,0.3,0.4,10", "--search", "shape=flat"]
    run(monkeypatch, "tests.quick", *words, "--sampler", "grid", "--sweep-dir", folder, "--", "--epochs", "3")
    best = best_of(folder)
    assert best["command"] == "python -m tests.quick --epochs 3 --lr 0.1 --shape flat"
    assert capsys.readouterr().out.endswith(f"{best['command']}\n")
    assert (best["trial"], best["value"], best["settings"]) == (1, pytest.approx(1 / 3), {"lr": 0.1, "shape": "flat"})
    assert [trial["state"] for trial in best["trials"]] == [*["complete"] * 4, "pruned"]
    assert read_record(folder / "trials" / "4").last_step == 2
    assert {path.name for path in (folder / "plots").iterdir()} == {"parallel.png", "importance.png"}
    assert best["importances"]["lr"] == pytest.approx(1)
    assert len((folder / "comparison.md").read_text().splitlines()) == 2 + 5


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed together with its run in the middle of a trial of two seeds; nothing is run twice."""
    folder = tmp_path / "sweep"
    words = ["tests.quick", "--search", "lr=log:0.01:1", "--seeds", "2", "--trials", "2", "--sweep-dir", str(folder)]
    command = [sys.executable, "-m", "core.sweep", *words, "--", "--pause", "1"]
    first = folder / "trials" / "0-seed-0"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while not (first / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    with suppress(ProcessLookupError):
        os.kill(int((first / "run.lock").read_text().split()[1]), signal.SIGKILL)
    run(monkeypatch, "--resume", folder)
    assert [trial["state"] for trial in best_of(folder)["trials"]] == ["complete", "complete"]
    records = {path.name: read_record(path) for path in sorted((folder / "trials").iterdir())}
    assert list(records) == ["0-seed-0", "0-seed-1", "1-seed-0", "1-seed-1"]
    assert {record.status for record in records.values()} == {"complete"}
    assert records["0-seed-0"].config["lr"] == records["0-seed-1"].config["lr"] != records["1-seed-0"].config["lr"]
    assert best_of(folder)["value"] == pytest.approx(
        min(sum(record.values("val/loss")[4] for record in list(records.values())[i : i + 2]) / 2 for i in (0, 2))
    )
    run(monkeypatch, "--resume", folder, "--trials", 2)  # nothing is left to do


def test_a_sweep_whose_trials_all_fail_ends_with_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["tests.quick", "--search", "lr=log:0.01:1", "--jobs", 3, "--sweep-dir", tmp_path / "sweep"]
    with pytest.raises(Exception, match="the first 3 trials failed: error: this run was asked to fail"):
        run(monkeypatch, *words, "--", "--fail")


@pytest.mark.parametrize(
    ("search", "fixed", "named"),
    [
        (["lr=0:1"], [], "--lr 0.0"),
        (["lr=1:11"], [], "--lr 11.0"),
        (["lr=log:0:1"], [], "above 0"),
        (["lr=1:0.1"], [], "LOW has to be below HIGH"),
        (["lr=fast,slow"], [], "'fast' is not a number"),
        (["lr"], [], "nothing to search"),
        (["lr=0.1,0.1"], [], "a value stands twice"),
        (["lr=0.1", "lr=0.2"], [], "searched twice"),
        (["epochs=1.5:3"], [], "'1.5' is not a whole number"),
        (["shape=flat,round"], [], "--shape: invalid choice"),
        (["speed=1:2"], [], "no setting to search"),
        (["seed=1,2"], [], "no setting to search"),
        (["lr=0.1,1"], ["--lr", "0.2"], "both fixed and searched"),
        (["lr=0.1,1"], ["--lrr", "0.2"], "did you mean --lr"),
        (["lr=0.1,1"], ["--epochs", "0"], "--epochs 0"),
        (["lr=0.1,1"], ["--run-dir", "x"], "not a setting"),
    ],
)
def test_what_the_program_would_refuse_is_refused_at_once(
    search: Sequence[str], fixed: Sequence[str], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        SearchSpace.parse("tests.quick", search, fixed)


def test_wrong_commands_create_nothing(tmp_path: Path, program: Program) -> None:
    commands = [
        ["tests.quick", "--search", "lr=0:1"],
        ["tests.absent", "--search", "lr=1"],
        ["core.compare", "--search", "lr=1"],
        ["tests.quick"],
        ["tests.quick", "--search", "lr=0.1:1", "--sampler", "grid"],
        ["--resume", "nothing"],
        ["tests.quick", "--search", "lr=0.1:1", "--resume", "nothing"],
    ]
    script = "import sys; from core import errors, sweep\nfor words in {}:\n sys.argv[1:] = words\n"
    script += " try: errors.run_command(sweep.main)\n except SystemExit as end: print(end.code)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script.format(commands)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["2"] * len(commands)
    assert done.stderr.count("\n") == done.stderr.count("error: ") == len(commands)
    assert list(tmp_path.iterdir()) == []


def test_ranges_points_and_lists_become_flags() -> None:
    words = ["lr=log:0.01:1:3", "epochs=1:3:3", "clip-norm=none,2", "fail=true,false", "shape=steep"]
    space = SearchSpace.parse("tests.quick", words, ["--device", "cpu"])
    assert [dimension.values for dimension in space.dimensions] == [
        (0.01, 0.1, 1.0),
        (1, 2, 3),
        (None, 2.0),
        (True, False),
        ("steep",),
    ]
    assert len(space.points()) == 36
    first = dict(zip((dimension.name for dimension in space.dimensions), space.points()[0], strict=True))
    assert shlex.join(space.flags(first)) == "--lr 0.01 --epochs 1 --fail --shape steep"
