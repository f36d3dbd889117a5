"""The classifier's run, killed at random instants and resumed, ends bit for bit as the unbroken one."""

from pathlib import Path

import pytest

from projects.cifar10 import train as program
from tests import forked
from tests.projects.cifar10.conftest import MakeFolder, summary

TINY = ["--num-synthetic", 200, "--image-size", 16, "--batch-size", 20, "--epochs", 2, "--val-fraction", 0.1]
TINY += ["--model", "fast", "--lr", 0.1, "--log-every", 7, "--checkpoint-every", 2, "--keep", 2, "--device", "cpu"]
SYNTHETIC = ["--data", "synthetic", *TINY]
SETTINGS = {
    "averaged": ["--ema", 0.9, "--precision", "bf16"],
    "accumulating": ["--ema", 0, "--precision", "fp32", "--accumulate", 2, "--clip-norm", 1],
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


def test_a_streamed_folder_is_taken_up_in_the_middle_of_an_epoch_with_other_workers(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    settings = ["--data", make_folder(train=20, val=3), *TINY, "--ema", 0.9, "--resident", "no"]
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings, "--workers", 0]) == 0
    assert (
        forked.run(forked.stopping_at(4, program), ["--run-dir", tmp_path / "broken", *settings, "--workers", 1]) == 143
    )
    assert forked.run(main, ["--resume", tmp_path / "broken", "--workers", 0]) == 0
    assert ending(tmp_path / "broken") == ending(tmp_path / "whole")


def test_a_complete_run_says_so_and_no_file_changes(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *SYNTHETIC, "--epochs", 1]) == 0
    before = forked.contents(run_dir)
    assert forked.said(main, ["--resume", run_dir], tmp_path) == f"already complete: {run_dir}\n"
    assert forked.contents(run_dir) == before


def test_a_complete_run_goes_on_when_more_epochs_are_asked_for(tmp_path: Path) -> None:
    assert forked.run(main, ["--run-dir", tmp_path / "run", *SYNTHETIC, "--epochs", 1]) == 0
    assert forked.run(main, ["--resume", tmp_path / "run", "--epochs", 2]) == 0
    assert summary(tmp_path / "run")["steps"] == 18


def test_another_structural_setting_is_refused_and_no_file_changes(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *SYNTHETIC, "--no-flip", "--max-steps", 1]) == 0
    before = forked.contents(run_dir)
    for setting in (["--model", "resnet20"], ["--lr", 0.2], ["--image-size", 17], ["--flip"]):
        assert forked.run(main, ["--resume", run_dir, *setting]) == 2
        assert forked.contents(run_dir) == before


def test_other_pictures_are_refused_and_no_file_changes(make_folder: MakeFolder, tmp_path: Path) -> None:
    data, run_dir = make_folder(train=10, val=2), tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, "--data", data, *TINY, "--max-steps", 1]) == 0
    next((data / "train").glob("*/*.png")).unlink()
    before = forked.contents(run_dir)
    assert forked.run(main, ["--resume", run_dir, "--max-steps", 2]) == 2
    assert forked.contents(run_dir) == before
