"""--profile leaves a trace that Chrome reads and a table that says what a step spends its time on."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.profiling import step_table
from tests import toy


def test_a_profiled_run_leaves_a_trace_and_a_table(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    toy.main(["--run-dir", str(tmp_path / "run"), "--epochs", "2", "--profile"])
    table = (tmp_path / "run" / "profile" / "table.txt").read_text("utf-8")
    assert re.match(r"One optimizer step: [0-9.]+ ms \(mean of 6, on CPU", table)
    shares = {name: int(share) for name, share in re.findall(r"^([a-z][a-z ]*?) +[0-9.]+ ms +(\d+)%", table, re.M)}
    assert list(shares) == ["data", "forward and loss", "backward", "optimizer"]
    assert 96 <= sum(shares.values()) <= 104
    assert re.search(r"^ *aten::\w+ ", table, re.M)  # which operators are the slowest differs between machines
    events = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text("utf-8"))["traceEvents"]
    assert {"data", "train step", "backward", "optimizer"} <= {event.get("name") for event in events}


def test_a_run_without_profile_leaves_none(tmp_path: Path) -> None:
    toy.main(["--run-dir", str(tmp_path / "run"), "--epochs", "1"])
    assert not (tmp_path / "run" / "profile").exists()


def event(name: str, start: float, end: float, *, gpu: bool = False, kernels: tuple[float, ...] = ()) -> Any:
    """One of the profiler's events: of the host with the durations of the kernels that it starts, or of the GPU."""
    device, durations = SimpleNamespace(name="CUDA" if gpu else "CPU"), [SimpleNamespace(duration=d) for d in kernels]
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(name=name, device_type=device, time_range=span, kernels=durations)


@pytest.mark.parametrize(("data_us", "reason"), [(8_000, "for data"), (0, "for Python")])
def test_on_a_gpu_it_says_what_the_device_does_in_each_phase_and_what_it_waits_for(data_us: int, reason: str) -> None:
    begin = data_us
    events = [
        event("data", 0, data_us),
        event("train step", begin, begin + 6_000),
        event("aten::conv2d", begin + 100, begin + 200, kernels=(600.0,)),
        event("backward", begin + 1_000, begin + 3_000),
        event("ConvolutionBackward0", begin + 1_500, begin + 1_600, kernels=(600.0, 300.0)),
        event("optimizer", begin + 3_000, begin + 4_000),
        event("aten::_fused_sgd_", begin + 3_100, begin + 3_200, kernels=(300.0,)),
        event("backward", begin + 1_500, begin + 2_900, gpu=True),  # the phase as the trace mirrors it: no work
        event("conv", begin + 300, begin + 900, gpu=True),
        event("wgrad", begin + 1_700, begin + 2_300, gpu=True),
        event("dgrad", begin + 2_000, begin + 2_600, gpu=True),  # on another stream
        event("sgd", begin + 3_300, begin + 3_600, gpu=True),
    ]
    first, verdict, _, head, *rows = step_table(events, "a GPU", is_gpu=True)
    assert first.startswith(f"One optimizer step: {(data_us + 6_000) / 6_000:.2f} ms")
    share = 1 - 1_800 / (data_us + 6_000)
    assert verdict.startswith(f"The GPU waits {share:.0%} of the time, mostly {reason}")
    assert head.split() == ["host", "device"]
    device = {row.split("  ")[0]: float(row.split()[-3]) for row in rows}
    assert device == {"data": 0, "forward and loss": 0.1, "backward": 0.15, "optimizer": 0.05}
