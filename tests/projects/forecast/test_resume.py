"""The forecaster's run, killed at random instants and resumed, ends bit for bit as the unbroken one."""

import json
import random
import signal
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from projects.forecast import train as program
from projects.forecast.data import Batch
from tests import forked
from tests.projects.forecast.conftest import TINY, MakeTable, summary

SYNTHETIC = ["--data", "synthetic", "--num-synthetic", 500, *TINY, "--log-every", 7, "--checkpoint-every", 2]
SETTINGS = {
    "averaged": ["--ema", 0.9, "--precision", "bf16"],
    "accumulating": ["--head", "point", "--precision", "fp32", "--accumulate", 2, "--clip-norm", 1, "--dropout", 0.3],
}


def main(argv: list[str]) -> None:
    program.train(program.parse_arguments(argv))


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    forked.warm_up(main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", *SYNTHETIC, "--max-steps", 2])


def ending(run_dir: Path) -> object:
    """What the end of a run is: weights, all states, metrics, the summary, and all scores on the test windows."""
    return forked.ending(run_dir), summary(run_dir), json.loads((run_dir / "test.json").read_text())


@pytest.mark.parametrize("name", SETTINGS)
def test_three_kills_at_random_instants_give_three_equal_endings(name: str, tmp_path: Path) -> None:
    settings = [*SYNTHETIC, *SETTINGS[name]]
    began = time.monotonic()
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings]) == 0
    whole_seconds = time.monotonic() - began
    expected = ending(tmp_path / "whole")
    moments = random.Random(name)
    killed = 0
    for share in (0.1, 0.3, 0.6):
        run_dir = tmp_path / str(share)
        kill_after: float | None = whole_seconds * (share + moments.uniform(-0.05, 0.05))
        code = forked.run(main, ["--run-dir", run_dir, *settings], kill_after=kill_after)
        while code != 0:
            assert code == -9
            killed += 1
            kill_after = whole_seconds * moments.uniform(0.1, 0.4) if killed % 3 == 0 else None
            arguments = ["--resume", run_dir] if (run_dir / "run.json").exists() else ["--run-dir", run_dir, *settings]
            code = forked.run(main, arguments, kill_after=kill_after)
        assert ending(run_dir) == expected
        assert not list(run_dir.glob("checkpoints/.tmp-*"))
    assert killed >= 2, "too few of the kills hit a running program"


@pytest.mark.parametrize("model", ["lstm", "dlinear"])
def test_the_other_models_are_taken_up_in_the_middle_of_an_epoch(model: str, tmp_path: Path) -> None:
    settings = [*SYNTHETIC, "--model", model]
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings]) == 0
    assert forked.run(stopping_at(5), ["--run-dir", tmp_path / "broken", *settings]) == 143
    assert not (tmp_path / "broken" / "summary.json").exists()
    assert forked.run(main, ["--resume", tmp_path / "broken"]) == 0
    assert ending(tmp_path / "broken") == ending(tmp_path / "whole")


def stopping_at(step: int) -> forked.Main:
    """The program, which sends itself SIGTERM in the train step of a number."""

    def stop(argv: list[str]) -> None:
        inner = program.train_step

        def train_step(batch: Batch, **rest: Any) -> dict[str, Tensor]:
            metrics = inner(batch, **rest)
            if rest["scheduler"].last_epoch == step:
                signal.raise_signal(signal.SIGTERM)
            return metrics

        program.train_step = train_step
        main(argv)

    return stop


def test_a_complete_run_says_so_no_file_changes_and_it_goes_on_when_more_is_asked_for(tmp_path: Path) -> None:
    run_dir, said = tmp_path / "run", tmp_path / "said"
    assert forked.run(main, ["--run-dir", run_dir, *SYNTHETIC, "--epochs", 1]) == 0
    before = contents(run_dir)
    assert forked.run(telling(said), ["--resume", run_dir]) == 0
    assert said.read_text() == f"already complete: {run_dir}\n"
    assert contents(run_dir) == before
    assert forked.run(main, ["--resume", run_dir, "--epochs", 2]) == 0
    assert summary(run_dir)["steps"] == 32


def test_another_structural_setting_is_refused_and_no_file_changes(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *SYNTHETIC, "--max-steps", 1]) == 0
    before = contents(run_dir)
    for setting in (["--model", "lstm"], ["--lookback", 30], ["--horizon", 7], ["--split", "0.6/0.2/0.2"]):
        assert forked.run(main, ["--resume", run_dir, *setting]) == 2
        assert contents(run_dir) == before


def test_another_table_is_refused_and_no_file_changes(make_table: MakeTable, tmp_path: Path) -> None:
    data, run_dir = make_table(300), tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, "--data", data, *TINY, "--max-steps", 1]) == 0
    before = contents(run_dir)
    make_table(300, edit=lambda rows: rows[-1].__setitem__(1, "7"))  # in the test rows, which no scaler sees
    assert forked.run(main, ["--resume", run_dir, "--max-steps", 2]) == 2
    assert contents(run_dir) == before


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file but the lock, which names its last holder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}


def telling(path: Path) -> forked.Main:
    """The program, with its standard output in a file."""

    def tell(argv: list[str]) -> None:
        with path.open("w") as file, redirect_stdout(file):
            main(argv)

    return tell
