"""SIGINT and SIGTERM save at the exact step and leave with 130 and 143."""

import os
import signal
import time
from pathlib import Path

import pytest

from core import checkpoint
from tests import forked, toy

LONG = ["--epochs", 100_000, "--log-every", 1]


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    forked.warm_up(toy.main, ["--run-dir", tmp_path_factory.mktemp("warm") / "run", "--epochs", 1])


def wait_for_training(run_dir: Path) -> None:
    """Returns when the first step has been logged."""
    deadline = time.monotonic() + 60
    while not (run_dir / "metrics.jsonl").exists():
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_at_the_step_and_leaves(number: int, code: int, workers: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    child = forked.start(toy.main, ["--run-dir", run_dir, *LONG, "--workers", workers])
    wait_for_training(run_dir)
    sent = time.monotonic()
    os.kill(child, number)
    assert forked.wait(child) == code
    assert time.monotonic() - sent < 10
    newest = checkpoint.newest_good(run_dir)
    logged = forked.metrics(run_dir)[-1]["step"]
    assert checkpoint.load(newest)["loop"]["step"] == logged, "the step that was logged last is the one that was saved"


def test_the_whole_process_group_interrupted_as_by_the_keyboard(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    child = forked.start(toy.main, ["--run-dir", run_dir, *LONG, "--workers", 2], own_group=True)
    wait_for_training(run_dir)
    os.killpg(child, signal.SIGINT)
    assert forked.wait(child) == 130
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(child, 0)
    assert checkpoint.folders(run_dir)


def test_a_killed_training_leaves_no_worker_behind(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    child = forked.start(toy.main, ["--run-dir", run_dir, *LONG, "--workers", 2], own_group=True)
    wait_for_training(run_dir)
    os.kill(child, signal.SIGKILL)
    assert forked.wait(child) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while group_is_alive(child):
        assert time.monotonic() < deadline, "a worker outlived the training"
        time.sleep(0.05)


def group_is_alive(group: int) -> bool:
    """Whether a process of a group is running; those that only wait to be reaped do not count."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_holds_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    child = forked.start(toy.main, ["--run-dir", run_dir, *LONG])
    wait_for_training(run_dir)
    assert forked.run(toy.main, ["--resume", run_dir]) == 2
    os.kill(child, signal.SIGTERM)
    assert forked.wait(child) == 143
