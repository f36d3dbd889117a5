"""Two ranks under torchrun: one run, exact evaluation, and no rank left behind when one is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from core import checkpoint
from core.data import Order, StreamLoader
from tests import forked, toy
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process groups are looked up in /proc")


def launched(tmp_path: Path, *arguments: object, launcher: tuple[object, ...] = ()) -> subprocess.Popen[str]:
    """Starts the toy on two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *launcher]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    words = [str(word) for word in (*command, "-m", "tests.toy", *arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)


def torchrun(tmp_path: Path, *arguments: object, launcher: tuple[object, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the toy on two ranks."""
    with launched(tmp_path, *arguments, launcher=launcher) as process:
        try:
            output, errors = process.communicate(timeout=200)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run on two ranks."""
    folder = tmp_path_factory.mktemp("whole")
    done = torchrun(folder, "--run-dir", folder / "run", "--accumulate", 2, "--ema", 0.9, "--checkpoint-every", 3)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "run"


def test_two_ranks_make_one_run_with_one_set_of_lines(whole: Path) -> None:
    lines = forked.metrics(whole)
    keys = [(line["step"], "val/loss" in line) for line in lines]
    assert len(keys) == len(set(keys))
    assert lines[-1]["step"] == 3 * 6  # 90 samples, batches of 8 over both ranks, windows of two, three epochs


def test_evaluation_over_uneven_shards_is_that_of_one_process(whole: Path) -> None:
    state = checkpoint.load_newest(whole)[1]
    network = nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    network.load_state_dict(state["ema"]["module"])
    alone = toy.evaluate(StreamLoader(toy.Vectors(37, seed=6), Order(37, 8, training=False)), network)
    together = forked.metrics(whole)[-1]
    assert together["val/accuracy"] == pytest.approx(alone["accuracy"], abs=1e-12)
    assert together["val/loss"] == pytest.approx(alone["loss"], rel=1e-6)


def test_a_killed_rank_is_restarted_and_the_run_ends_as_if_nothing_had_happened(whole: Path, tmp_path: Path) -> None:
    settings = ("--accumulate", 2, "--ema", 0.9, "--checkpoint-every", 3, "--fail-rank", 1, "--fail-step", 11)
    done = torchrun(tmp_path, "--run-dir", tmp_path / "run", *settings, launcher=("--max-restarts", 1))
    assert done.returncode == 0, done.stderr[-2000:]
    assert forked.metrics(tmp_path / "run") == forked.metrics(whole)
    ends = [checkpoint.load_newest(run_dir)[1] for run_dir in (tmp_path / "run", whole)]
    for part in ("model", "ema"):
        states = [end[part].get("module", end[part]) for end in ends]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


@pytest.mark.parametrize("kind", ["kill", "raise"])
def test_when_a_rank_is_lost_all_leave_within_a_minute(kind: str, tmp_path: Path) -> None:
    settings = ("--fail-rank", 1, "--fail-step", 15, "--fail-kind", kind)
    done = torchrun(tmp_path, "--run-dir", tmp_path / "run", *settings)
    assert done.returncode != 0
    assert time.time() - (tmp_path / "run" / "metrics.jsonl").stat().st_mtime < 60
    assert checkpoint.load_newest(tmp_path / "run")[0].name == "step-00000011"
    if kind == "raise":
        assert "error: [rank 1] ValueError: this rank was asked to fail" in done.stderr


def test_a_signal_in_an_evaluation_saves_the_step_before_and_ends_all_ranks(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with launched(tmp_path, "--run-dir", run_dir, "--evaluation-seconds", 1, "--epochs", 1) as process:
        deadline = time.monotonic() + 100
        while not (run_dir / "metrics.jsonl").exists() or forked.metrics(run_dir)[-1]["step"] < 11:
            assert time.monotonic() < deadline, "training did not come to its evaluation"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert f"stopped at step 11; continue with --resume {run_dir}" in errors
    place = checkpoint.load_newest(run_dir)[1]["loop"]
    assert (place["step"], place["batch"], place["evaluated_step"]) == (11, 11, -1)


def test_a_wrong_flag_is_said_once(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "--run-dir", tmp_path / "run", "--lr", -1)
    assert done.stderr.count("error: value out of range: --lr -1.0") == 1
    assert not (tmp_path / "run").exists()
