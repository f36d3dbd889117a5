"""The forecaster's run, killed at random instants and resumed, ends bit for bit as the unbroken one."""

import json
from pathlib import Path

import pytest

from projects.forecast import train as program
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
def test_killed_and_taken_up_it_ends_as_the_unbroken_run(name: str, tmp_path: Path) -> None:
    forked.assert_killed_runs_end_alike(main, [*SYNTHETIC, *SETTINGS[name]], tmp_path, ending)


@pytest.mark.parametrize("model", ["lstm", "dlinear"])
def test_the_other_models_are_taken_up_in_the_middle_of_an_epoch(model: str, tmp_path: Path) -> None:
    settings = [*SYNTHETIC, "--model", model]
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings]) == 0
    assert forked.run(forked.stopping_at(5, program), ["--run-dir", tmp_path / "broken", *settings]) == 143
    assert not (tmp_path / "broken" / "summary.json").exists()
    assert forked.run(main, ["--resume", tmp_path / "broken"]) == 0
    assert ending(tmp_path / "broken") == ending(tmp_path / "whole")


def test_a_complete_run_says_so_no_file_changes_and_it_goes_on_when_more_is_asked_for(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *SYNTHETIC, "--epochs", 1]) == 0
    before = forked.contents(run_dir)
    assert forked.said(main, ["--resume", run_dir], tmp_path) == f"already complete: {run_dir}\n"
    assert forked.contents(run_dir) == before
    assert forked.run(main, ["--resume", run_dir, "--epochs", 2]) == 0
    assert summary(run_dir)["steps"] == 32


def test_another_structural_setting_is_refused_and_no_file_changes(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *SYNTHETIC, "--max-steps", 1]) == 0
    before = forked.contents(run_dir)
    for setting in (["--model", "lstm"], ["--lookback", 30], ["--horizon", 7], ["--split", "0.6/0.2/0.2"]):
        assert forked.run(main, ["--resume", run_dir, *setting]) == 2
        assert forked.contents(run_dir) == before


def test_another_table_is_refused_and_no_file_changes(make_table: MakeTable, tmp_path: Path) -> None:
    data, run_dir = make_table(300), tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, "--data", data, *TINY, "--max-steps", 1]) == 0
    before = forked.contents(run_dir)
    make_table(300, edit=lambda rows: rows[-1].__setitem__(1, "7"))  # in the test rows, which no scaler sees
    assert forked.run(main, ["--resume", run_dir, "--max-steps", 2]) == 2
    assert forked.contents(run_dir) == before
