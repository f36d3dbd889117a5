"""With --patience a training ends when its evaluations stop getting better, resumed or not."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from core import checkpoint
from tests import forked, toy

LOSSES = [0.9, 0.5, 0.6, 0.5, 0.7, 0.8, 0.9, 0.1]  # an equal one is as good: the best is the fourth, at 0.5


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    forked.warm_up(toy.main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", "--epochs", 1])


def judged_by(losses: Sequence[float], run_dir: Path, main: forked.Main = toy.main) -> forked.Main:
    """The toy, whose evaluations give these losses in turn, whichever process makes them."""

    def evaluate(*_: object) -> dict[str, float]:
        lines = forked.metrics(run_dir) if (run_dir / "metrics.jsonl").exists() else []
        return {"loss": losses[sum("val/loss" in line for line in lines)]}

    def judged(argv: list[str]) -> None:
        toy.evaluate = evaluate  # type: ignore[assignment]
        main(argv)

    return judged


def evaluations(run_dir: Path) -> list[float]:
    """The losses of all evaluations that a run made."""
    return [line["val/loss"] for line in forked.metrics(run_dir) if "val/loss" in line]


@pytest.mark.parametrize(("patience", "num_made"), [(0, 8), (1, 3), (2, 6), (3, 7), (9, 8)])
def test_it_ends_after_that_many_evaluations_without_a_better_one(patience: int, num_made: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = ["--run-dir", run_dir, "--epochs", len(LOSSES), "--patience", patience]
    assert forked.run(judged_by(LOSSES, run_dir), arguments) == 0
    assert evaluations(run_dir) == LOSSES[:num_made]


def test_a_resumed_run_counts_on_and_ends_where_the_unbroken_one_does(tmp_path: Path) -> None:
    whole, broken, arguments = tmp_path / "whole", tmp_path / "broken", ["--epochs", 8, "--patience", 2]
    assert forked.run(judged_by(LOSSES, whole), ["--run-dir", whole, *arguments]) == 0
    per_epoch = forked.metrics(whole)[-1]["step"] // 6
    stop = forked.stopping_at(4 * per_epoch + 1, toy)
    assert forked.run(judged_by(LOSSES, broken, stop), ["--run-dir", broken, *arguments]) == 143
    assert forked.run(judged_by(LOSSES, broken), ["--resume", broken]) == 0
    assert forked.ending(broken) == forked.ending(whole)


def test_more_patience_lets_an_ended_run_go_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    toy_main = judged_by(LOSSES, run_dir)
    assert forked.run(toy_main, ["--run-dir", run_dir, "--epochs", 8, "--patience", 1]) == 0
    assert forked.run(toy_main, ["--resume", run_dir, "--patience", 2]) == 0
    assert evaluations(run_dir) == LOSSES[:6]
    assert checkpoint.load(checkpoint.folders(run_dir)[-1])["loop"]["best"] == 0.5
