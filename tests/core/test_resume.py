"""A run that was killed at any instant and resumed ends bit for bit as the unbroken run."""

import random
import time
from pathlib import Path

import pytest

from core import checkpoint
from core.run import read_run
from tests import forked, toy

SETTINGS = {
    "plain": [],
    "workers": ["--workers", 2],
    "accumulating": ["--accumulate", 3, "--clip-norm", 0.5],
    "bf16 and averaged": ["--precision", "bf16", "--ema", 0.9],
    "fp16 scaled": ["--precision", "fp16", "--ema", 0.9, "--accumulate", 2],
}


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    forked.warm_up(toy.main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", "--epochs", 1])


@pytest.fixture(params=SETTINGS, ids=lambda name: name.replace(" ", "-"))
def settings(request: pytest.FixtureRequest) -> list[object]:
    return [*SETTINGS[request.param], "--checkpoint-every", 5]


def test_stopped_at_every_kind_of_step_and_resumed(settings: list[object], tmp_path: Path) -> None:
    assert forked.run(toy.main, ["--run-dir", tmp_path / "whole", *settings]) == 0
    expected = forked.ending(tmp_path / "whole")
    last = expected[1][-1]["step"]
    per_epoch = last // 3
    for stop in {1, 3, per_epoch, per_epoch + 2, last - 1}:  # first, mid-epoch, epoch end, after one, last but one
        broken = tmp_path / f"stopped-{stop}"
        arguments = ["--run-dir", broken, *settings]
        assert forked.run(forked.stopping_at(stop, toy), arguments) == 143
        assert checkpoint.load(checkpoint.newest_good(broken))["loop"]["step"] == stop
        assert forked.run(toy.main, ["--resume", broken]) == 0
        assert forked.ending(broken) == expected


def test_twenty_kills_at_random_instants_give_twenty_equal_endings(tmp_path: Path) -> None:
    settings = ["--accumulate", 2, "--ema", 0.9, "--precision", "bf16", "--checkpoint-every", 3, "--epochs", 4]
    began = time.monotonic()
    assert forked.run(toy.main, ["--run-dir", tmp_path / "whole", *settings]) == 0
    duration = time.monotonic() - began
    expected = forked.ending(tmp_path / "whole")
    moments = random.Random(0)
    killed = 0
    for number in range(20):
        run_dir = tmp_path / str(number)
        kill_after: float | None = moments.uniform(0, duration)
        code = forked.run(toy.main, ["--run-dir", run_dir, *settings], kill_after=kill_after)
        while code != 0:
            killed += 1
            begun = (run_dir / "run.json").exists()
            arguments = ["--resume", run_dir] if begun else ["--run-dir", run_dir, *settings]
            kill_after = moments.uniform(0, duration) if killed % 3 else None
            code = forked.run(toy.main, arguments, kill_after=kill_after)
        assert forked.ending(run_dir) == expected
        assert not list(run_dir.glob("checkpoints/.tmp-*"))
    assert killed >= 10, "too few of the kills hit a running program"


def test_a_broken_newest_checkpoint_is_stepped_over(tmp_path: Path) -> None:
    arguments = ["--checkpoint-every", 4, "--keep", 9]
    assert forked.run(toy.main, ["--run-dir", tmp_path / "whole", *arguments]) == 0
    assert forked.run(forked.stopping_at(14, toy), ["--run-dir", tmp_path / "broken", *arguments]) == 143
    newest = checkpoint.folders(tmp_path / "broken")[-1] / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 16
    newest.write_bytes(content)
    assert forked.run(toy.main, ["--resume", tmp_path / "broken"]) == 0
    assert forked.ending(tmp_path / "broken") == forked.ending(tmp_path / "whole")


def test_more_epochs_and_other_workers_may_be_given_on_resume(tmp_path: Path) -> None:
    assert forked.run(toy.main, ["--run-dir", tmp_path / "run", "--epochs", 1]) == 0
    assert forked.run(toy.main, ["--resume", tmp_path / "run", "--epochs", 2, "--workers", 1]) == 0
    assert forked.metrics(tmp_path / "run")[-1]["epoch"] == 1
    stored = read_run(tmp_path / "run")
    assert stored["config"]["epochs"] == 2
    assert len(stored["history"]) == 1


def test_a_structural_setting_is_refused_on_resume_and_nothing_changes(tmp_path: Path) -> None:
    assert forked.run(toy.main, ["--run-dir", tmp_path / "run", "--epochs", 1]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert forked.run(toy.main, ["--resume", tmp_path / "run", "--batch-size", 4]) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    assert forked.run(toy.main, ["--run-dir", tmp_path / "run", "--poison-step", 7, "--checkpoint-every", 6]) == 1
    saved = checkpoint.load(checkpoint.newest_good(tmp_path / "run"))
    assert saved["loop"]["step"] == 6
