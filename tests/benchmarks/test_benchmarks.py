"""Each benchmark runs in a tiny setting, and its result says what it depends on. No time is judged here."""

import json
import statistics
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests import forked
from tests.benchmarks import (
    bench_checkpoint,
    bench_images,
    bench_kernels,
    bench_loader,
    bench_onnx,
    bench_serving,
    bench_step,
    bench_text,
    bench_transfer,
    measure,
)
from tests.benchmarks.__main__ import PLAN, QUICK
from tests.conftest import Program

FIELDS = {"format", "benchmark", "command", "date", "environment", "settings", "tables", "skipped", "baseline", "ours"}
ENVIRONMENT = {"torch", "python", "system", "processor", "threads", "commit", "numpy", "load"}
TINY = {
    "step": ["--steps", 3, "--warmup", 1, "--no-peers"],
    "images": ["--steps", 1, "--warmup", 1, "--batch-size", 10],
    "onnx": ["--repeats", 1, "--batch-sizes", 2, "--no-int8"],
    "checkpoint": ["--repeats", 1, "--large-rounds", 0],
    "text": ["--steps", 1, "--batch-size", 4, "--hidden-size", 4],
    "kernels": ["--repeats", 1, "--batch-sizes", 2, "--size", 4, "--rows", 3],
    "transfer": ["--images", 4, "--batch-size", 4, "--image-size", 64, "--backbone", "timm:test_resnet"],
    "loader": ["--steps", 2, "--warmup", 1, "--batch-size", 10, "--workers", 0, 1],
    "serving": ["--requests", 8, "--mixed", 30, "--networks", "fast"],
}
QUANTITIES = {
    "step": ["processor_us", "wall_us"],
    "images": ["images_per_second", "images_per_processor_second", "page_faults_per_step"],
    "onnx": ["wall_ms", "processor_ms"],
    "checkpoint": ["wall_ms", "processor_ms"],
    "text": ["words_per_second", "words_per_processor_second"],
    "kernels": ["wall_ms", "processor_ms"],
    "transfer": ["wall_ms", "processor_ms"],
    "loader": ["images_per_second", "waiting_percent"],
    "serving": ["images_per_second", "wall_ms"],
}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """The first optimizer step of a process loads the compiler, for seconds; children inherit it."""
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.ones(1)
    torch.optim.SGD([parameter], lr=0.1).step()


@pytest.mark.parametrize("name", TINY)
def test_result_has_what_it_depends_on(name: str, tmp_path: Path) -> None:
    path = tmp_path / "results" / f"{name}.json"
    modules = (
        *(bench_step, bench_images, bench_loader, bench_onnx, bench_checkpoint, bench_text, bench_kernels),
        *(bench_transfer, bench_serving),
    )
    main = {module.__name__.rpartition("bench_")[2]: module for module in modules}[name].main
    # In a child: it sets threads and allocator for its whole process, and starting a program costs seconds.
    assert forked.run(main, ["--rounds", 1, *TINY[name], "--output", path]) == 0, "run it by hand to see why"
    result = json.loads(path.read_bytes())
    assert result.keys() >= FIELDS
    assert result["environment"].keys() >= ENVIRONMENT
    assert result["environment"]["threads"] == 1
    assert result["benchmark"] == name
    assert result["command"].startswith(f"python -m tests.benchmarks.bench_{name} --rounds 1")
    assert str(tmp_path) not in json.dumps(result)
    for rows in result["tables"].values():
        names = [row["name"] for row in rows]
        assert result["ours"] in names
        assert result["baseline"] in names
        for row in rows:
            for quantity in QUANTITIES[name]:
                assert row[quantity]["low"] <= row[quantity]["median"] <= row[quantity]["high"]
                assert row[quantity]["median"] > 0 or quantity == "page_faults_per_step"
        base = next(row for row in rows if row["name"] == result["baseline"])
        assert base[f"{QUANTITIES[name][0]}_ratio"]["median"] == 1


@pytest.mark.parametrize("name", QUICK)
def test_the_command_for_all_gives_flags_that_there_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        import_module(f"tests.benchmarks.bench_{name}").main(["--help"])
    known = capsys.readouterr().out
    assert [word for word in [*PLAN[name], *QUICK[name]] if word.startswith("--") and f"{word} " not in known] == []


@pytest.mark.skipif(
    find_spec("lightning") is None or find_spec("accelerate") is None,
    reason="the peers, lightning and accelerate, are not installed",
)
def test_peers_are_measured_where_they_are_installed(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    arguments = ["--rounds", 1, "--steps", 2, "--warmup", 1, "--output", path]
    done = program("tests.benchmarks.bench_step", *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_bytes())
    assert not result["skipped"]
    assert {"Lightning Fabric", "Accelerate"} <= {row["name"] for row in result["tables"]["step, peers loaded"]}


def test_medians_of_ratios_stand_beside_medians() -> None:
    slow = iter([1.0, 10.0, 1.0])  # the machine is slow in the second round, for both sides
    found: dict[str, list[measure.Numbers]] = {"a": [], "b": []}
    for factor in slow:
        found["a"].append({"ms": 2 * factor})
        found["b"].append({"ms": 3 * factor})
    rows = {row["name"]: row for row in measure.summarize(found, "a")}
    assert rows["b"]["ms_ratio"] == {"median": 1.5, "low": 1.5, "high": 1.5}
    assert rows["b"]["ms"]["median"] == statistics.median([3.0, 30.0, 3.0])


def test_command_is_recorded_without_paths() -> None:
    argv = ["--rounds", "2", "--output", "/a/b.json", "--threads", "1", "--directory=/c/d"]
    assert measure.command("step", argv) == "python -m tests.benchmarks.bench_step --rounds 2 --threads 1"


def test_clock_times_whole_turns() -> None:
    clock = measure.StepClock(warmup=2, steps=3)
    with pytest.raises(RuntimeError, match="0 batches were taken, 6 are needed"):
        clock.seconds()
    for _ in range(clock.num_batches):
        clock.tick()
    processor, wall = clock.seconds()
    assert 0 <= processor <= wall + 0.1
