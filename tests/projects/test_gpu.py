"""What only a GPU can show of the projects. Skipped without one; in a -gpu environment a missing GPU is a failure."""

import json
from pathlib import Path

import pytest

from tests.conftest import Program
from tests.projects.contract import Contract

pytestmark = pytest.mark.usefixtures("gpu")


def test_replayed_steps_learn_what_ordinary_ones_learn(
    project: str, contract: Contract, program: Program, tmp_path: Path
) -> None:
    losses = []
    for graph in ("no", "auto"):
        settings = [*contract.settings, "--device", "cuda", "--precision", "fp32", "--graph", graph]
        done = program(f"projects.{project}.train", *settings, "--run-dir", tmp_path / graph)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (tmp_path / graph / "metrics.jsonl").read_text("utf-8").splitlines()]
        assert all(0 < line["gpu_busy"] <= 1 for line in lines if "train/loss" in line)
        losses.append([line["train/loss"] for line in lines if "train/loss" in line])
        assert json.loads((tmp_path / graph / "summary.json").read_text("utf-8"))["peak_device_memory_mb"] > 0
    # Later steps of two runs drift apart by themselves, because not all of a GPU's sums have one order.
    assert losses[1][:2] == pytest.approx(losses[0][:2], rel=1e-2)
    assert len(losses[0]) == len(losses[1])


def test_a_profiled_run_tells_what_the_gpu_does(
    project: str, contract: Contract, program: Program, tmp_path: Path
) -> None:
    settings = [*contract.settings, "--device", "cuda", "--profile"]
    done = program(f"projects.{project}.train", *settings, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "The GPU waits" in (tmp_path / "run" / "profile" / "table.txt").read_text("utf-8")
