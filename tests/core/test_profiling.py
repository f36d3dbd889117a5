"""--profile leaves a trace that Chrome reads and a table that says what a step spends its time on."""

import json
import re
from pathlib import Path

import torch

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
