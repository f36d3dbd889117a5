"""A run that was killed at any instant and resumed ends bit for bit as the unbroken run."""

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import checkpoint, trainer, training_state
from core.run_record import read_run
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
        assert checkpoint.load_newest(broken)[1]["loop"]["step"] == stop
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
        duration *= 0.8 if code == 0 else 1.0  # it came after the end: the machine was slower before
        while code != 0:
            killed += 1
            begun = (run_dir / "run.json").exists()
            arguments = ["--resume", run_dir] if begun else ["--run-dir", run_dir, *settings]
            kill_after = moments.uniform(0, duration) if killed % 3 else None
            code = forked.run(toy.main, arguments, kill_after=kill_after)
        assert forked.ending(run_dir) == expected
        assert not list(run_dir.glob("checkpoints/.tmp-*"))
    assert killed >= 5, "too few of the kills hit a running program"


def killed_before_save(number: int) -> forked.Main:
    """The toy's training, killed before it writes its checkpoint of a number, counted from 1."""

    def main(argv: list[str]) -> None:
        whole, count = training_state.save, 0

        def save(*arguments: Any) -> None:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            whole(*arguments)

        setattr(trainer, "save", save)  # noqa: B010
        toy.main(argv)

    return main


def test_no_line_of_metrics_stands_twice_where_a_step_is_evaluated_after_its_checkpoint(tmp_path: Path) -> None:
    arguments = ["--epochs", 1, "--max-steps", 8, "--checkpoint-every", 4]
    assert forked.run(toy.main, ["--run-dir", tmp_path / "whole", *arguments]) == 0
    assert forked.run(killed_before_save(3), ["--run-dir", tmp_path / "killed", *arguments]) == -signal.SIGKILL
    assert forked.metrics(tmp_path / "killed") == forked.metrics(tmp_path / "whole")
    assert forked.run(toy.main, ["--resume", tmp_path / "killed"]) == 0
    assert forked.ending(tmp_path / "killed") == forked.ending(tmp_path / "whole")


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 16
    (folder / "model.safetensors").write_bytes(content)


def resealed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes what state.json holds, with a manifest that fits it."""

    def damage(folder: Path) -> None:
        tree = read(folder / "state.json")
        state = {name: dict(part["items"]) for name, part in tree.items() if isinstance(part, dict)}
        change(state)
        tree.update({name: {"items": list(items.items())} for name, items in state.items()})
        content = json.dumps(tree).replace('"NESTED"', "[" * 900 + "]" * 900).encode()
        (folder / "state.json").write_bytes(content)
        body = {key: value for key, value in read(folder / checkpoint.MANIFEST).items() if key != "sha256"}
        body["files"]["state.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (folder / checkpoint.MANIFEST).write_bytes(checkpoint.sealed(body))

    return damage


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


DAMAGE = {
    "a flipped bit": flip_a_bit,
    "no step": resealed(lambda state: state["loop"].pop("step")),
    "a step in words": resealed(lambda state: state["loop"].update(step="two")),
    "a layout that filters do not have": resealed(
        lambda state: state["model"].update({"0.bias": {**state["model"]["0.bias"], "channels_last": True}})
    ),
    "an optimizer without groups": resealed(lambda state: state["optimizer"].pop("param_groups")),
    "deeply nested": resealed(lambda state: state["loop"].update(best="NESTED")),
}


@pytest.mark.parametrize("kind", DAMAGE, ids=lambda name: name.replace(" ", "-"))
def test_a_broken_newest_checkpoint_is_set_aside_at_the_first_start(kind: str, tmp_path: Path) -> None:
    arguments = ["--checkpoint-every", 1, "--epochs", 2]
    assert forked.run(toy.main, ["--run-dir", tmp_path / "whole", *arguments]) == 0
    assert forked.run(forked.stopping_at(14, toy), ["--run-dir", tmp_path / "broken", *arguments]) == 143
    newest = checkpoint.folders(tmp_path / "broken")[-1]
    DAMAGE[kind](newest)
    assert forked.run(toy.main, ["--resume", tmp_path / "broken"]) == 0
    assert (newest.parent / f"broken-{newest.name}").is_dir()
    assert forked.ending(tmp_path / "broken") == forked.ending(tmp_path / "whole")


def test_where_the_best_checkpoint_is_lost_the_best_of_the_others_takes_its_place(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(toy.main, ["--run-dir", run_dir, "--epochs", 2]) == 0
    assert checkpoint.best_step(run_dir) == 11, "the toy's validation loss rises"
    flip_a_bit(checkpoint.folder_of(run_dir, 11))
    assert forked.run(toy.main, ["--resume", run_dir, "--epochs", 4]) == 0
    best = checkpoint.best_step(run_dir)
    assert best is not None
    assert best > 11
    checkpoint.verify(checkpoint.folder_of(run_dir, best))


def test_with_more_epochs_the_first_step_already_has_the_new_schedules_rate(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert forked.run(toy.main, ["--run-dir", run_dir, "--epochs", 1, "--checkpoint-every", 1, "--keep", 30]) == 0
    assert forked.run(toy.main, ["--resume", run_dir, "--epochs", 2]) == 0
    before, after = (checkpoint.load(checkpoint.folder_of(run_dir, step))["model"]["0.weight"] for step in (11, 12))
    assert not before.equal(after), "at the end of the old schedule the rate was 0"


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
    saved = checkpoint.load_newest(tmp_path / "run")[1]
    assert saved["loop"]["step"] == 6
