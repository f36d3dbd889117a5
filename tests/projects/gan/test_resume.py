"""Both networks, both optimizers and the average end bit for bit as in the unbroken run, however it was stopped."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from core import checkpoint
from projects.gan import train as program
from projects.gan.data import Batch
from tests import forked
from tests.projects.gan.conftest import summary

TINY = ["--data", "synthetic", "--num-synthetic", 200, "--image-size", 8, "--batch-size", 10, "--width", 8]
TINY += ["--latent", 6, "--epochs", 2, "--epoch-steps", 24, "--judge-steps", 10, "--log-every", 7]
TINY += ["--checkpoint-every", 5, "--keep", 2, "--device", "cpu", "--lr", 0.002]
SETTINGS = {
    "hinge": ["--precision", "bf16", "--spectral-norm", "both", "--ema", 0.9],
    "r1": ["--precision", "fp32", "--loss", "nonsaturating", "--r1", 1, "--r1-every", 4, "--accumulate", 2],
}
PARTS = {"generator", "discriminator", "generator_optimizer", "discriminator_optimizer", "ema"}


def main(argv: list[str]) -> None:
    program.train(program.parse_arguments(argv))


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    forked.warm_up(main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", *TINY, "--max-steps", 2])


def ending(run_dir: Path) -> object:
    """What the end of a run is: weights, all states, metrics, summary, and the pictures of each epoch."""
    drawn = {path.name: path.read_bytes() for path in (run_dir / "plots" / "samples").iterdir()}
    return forked.ending(run_dir), summary(run_dir), drawn


@pytest.mark.parametrize("name", SETTINGS)
def test_kills_at_random_instants_give_the_same_ending(name: str, tmp_path: Path) -> None:
    settings = [*TINY, *SETTINGS[name]]
    began = time.monotonic()
    assert forked.run(main, ["--run-dir", tmp_path / "whole", *settings]) == 0
    whole_seconds = time.monotonic() - began
    saved = checkpoint.load(checkpoint.folders(tmp_path / "whole")[-1])
    assert set(saved) >= PARTS
    expected = ending(tmp_path / "whole")
    moments = random.Random(name)
    killed = 0
    for share in (0.3, 0.6):
        run_dir = tmp_path / str(share)
        kill_after: float | None = whole_seconds * (share + moments.uniform(-0.12, 0.12))
        code = forked.run(main, ["--run-dir", run_dir, *settings], kill_after=kill_after)
        while code != 0:
            assert code == -9
            killed += 1
            kill_after = whole_seconds * moments.uniform(0.2, 0.6) if killed % 3 == 0 else None
            arguments = ["--resume", run_dir] if (run_dir / "run.json").exists() else ["--run-dir", run_dir, *settings]
            code = forked.run(main, arguments, kill_after=kill_after)
        assert ending(run_dir) == expected
        assert not list(run_dir.glob("checkpoints/.tmp-*"))
    assert killed, "no kill hit a running program"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_in_two_parts_equals_one_in_a_piece(name: str, tmp_path: Path) -> None:
    settings = [*TINY, *SETTINGS[name]]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert forked.run(main, ["--run-dir", whole, *settings, "--max-steps", 11]) == 0
    assert forked.run(stopping_at(7), ["--run-dir", parts, *settings, "--max-steps", 11]) == 143
    assert forked.run(main, ["--resume", parts]) == 0
    assert forked.ending(parts) == forked.ending(whole)
    assert summary(parts) == summary(whole)


def stopping_at(step: int) -> forked.Main:
    """The program, which sends itself SIGTERM in the train step after a number of updates."""

    def stop(argv: list[str]) -> None:
        inner = program.train_step

        def train_step(batch: Batch, **rest: Any) -> dict[str, Tensor]:
            metrics = inner(batch, **rest)
            if rest["players"].ema.num_updates == step:
                signal.raise_signal(signal.SIGTERM)
            return metrics

        program.train_step = train_step
        main(argv)

    return stop


def test_other_data_another_judge_and_another_network_are_refused(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(main, ["--run-dir", run_dir, *TINY, "--max-steps", 1]) == 0
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != "run.lock"}
    for changed in (["--num-synthetic", 300], ["--judge", "shapes"], ["--width", 16], ["--discriminator-lr", 0.1]):
        assert forked.run(main, ["--resume", run_dir, *changed]) == 2
    now = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != "run.lock"}
    assert now == before
