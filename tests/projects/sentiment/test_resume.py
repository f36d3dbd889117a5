"""The classifier's run, killed at random instants and resumed, ends bit for bit as the unbroken one."""

from pathlib import Path

import pytest

from projects.sentiment import train as program
from tests import forked
from tests.projects.sentiment.conftest import WriteTable, summary

TINY = ["--min-count", 1, "--embedding-size", 8, "--hidden-size", 6, "--layers", 2, "--members", 2, "--epochs", 2]
TINY += ["--batch-size", 10, "--lr", 0.01, "--val-fraction", 0.2, "--log-every", 7, "--checkpoint-every", 3]
TINY += ["--keep", 2, "--device", "cpu"]
SYNTHETIC = ["--data", "synthetic", "--num-synthetic", 250, *TINY]
SETTINGS = {
    "averaged": ["--ema", 0.9, "--precision", "bf16", "--pooling", "attention"],
    "accumulating": ["--ema", 0, "--precision", "fp32", "--accumulate", 2, "--tokenizer", "bpe"],
}


def main(argv: list[str]) -> None:
    program.train(program.parse_arguments(argv))


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    forked.warm_up(main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", *SYNTHETIC, "--max-steps", 2])


def ending(run_dir: Path) -> object:
    """What the end of a run is: weights, all states, metrics, and the summary with the test accuracy."""
    return forked.ending(run_dir), summary(run_dir)


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_taken_up_it_ends_as_the_unbroken_run(name: str, tmp_path: Path) -> None:
    forked.assert_killed_runs_end_alike(main, [*SYNTHETIC, *SETTINGS[name]], tmp_path, ending)


def test_a_run_on_own_texts_is_taken_up_in_the_middle_of_an_epoch(write_table: WriteTable, tmp_path: Path) -> None:
    settings = ["--data", write_table("reviews.csv", 200), *TINY, "--ema", 0.9]
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings]) == 0
    assert forked.run(forked.stopping_at(5, program), ["--run-dir", tmp_path / "broken", *settings]) == 143
    assert forked.run(main, ["--resume", tmp_path / "broken"]) == 0
    assert ending(tmp_path / "broken") == ending(tmp_path / "whole")


def test_a_complete_run_says_so_and_no_file_changes(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *SYNTHETIC, "--epochs", 1]) == 0
    before = forked.contents(run_dir)
    assert forked.said(main, ["--resume", run_dir], tmp_path) == f"already complete: {run_dir}\n"
    assert forked.contents(run_dir) == before
    assert forked.run(main, ["--resume", run_dir, "--epochs", 2]) == 0
    assert summary(run_dir)["steps"] == 40


def test_other_settings_or_texts_are_refused_and_no_file_changes(write_table: WriteTable, tmp_path: Path) -> None:
    data, run_dir = write_table("reviews.csv", 100), tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, "--data", data, *TINY, "--max-steps", 1]) == 0
    before = forked.contents(run_dir)
    for setting in (["--hidden-size", 7], ["--tokenizer", "bpe"], ["--max-length", 9], ["--seed", 1]):
        assert forked.run(main, ["--resume", run_dir, *setting]) == 2
        assert forked.contents(run_dir) == before
    with data.open("a") as file:
        file.write("one more fine text,good\n")
    assert forked.run(main, ["--resume", run_dir, "--max-steps", 2]) == 2
    assert forked.contents(run_dir) == before
