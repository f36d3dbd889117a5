"""All seven projects on a GPU: samples a second, the share of the time in which it works, memory; with and without
CUDA graphs.

Each side is a train program of its own on generated data, started as a user would start it, and read from its
metrics.jsonl between the first fifth of its lines and the last one, so that start-up and captures do not count.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import measure
from tests.conftest import ROOT

BASELINE, OURS = "ordinary steps", "as it comes"
SIDES = {BASELINE: "no", OURS: "auto"}
HEADINGS = {"samples_per_second": "samples/s", "step_ms": "ms/step", "busy_percent": "busy %", "memory_mb": "MB"}
# Flags beyond `--data synthetic` of a run that is long enough to be timed, by project.
RUNS = {
    "cifar10": "--num-synthetic 50000 --model fast --max-steps 1500",
    "transfer": "--max-steps 300",
    "sentiment": "--max-steps 600",
    "forecast": "--max-steps 600",
    "style": "--max-steps 200",
    "gan": "--max-steps 1000",
    "detection": "--max-steps 200",
}


def rates(project: str, graph: str, device: str, max_steps: int | None) -> measure.Numbers:
    """What one run says of itself. Raises RuntimeError with its last words where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        flags = ["--data", "synthetic", *RUNS[project].split(), "--log-every", "20"]
        flags += ["--graph", graph, "--device", device]
        flags += ["--max-steps", str(max_steps)] if max_steps else []
        command = [sys.executable, "-m", f"projects.{project}.train", *flags, "--run-dir", str(run_dir)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{project}: {done.stderr.strip().splitlines()[-1]}")
        config = json.loads((run_dir / "run.json").read_text("utf-8"))["config"]
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
        summary = json.loads((run_dir / "summary.json").read_text("utf-8"))
    timed = [line for line in lines if "samples_per_second" in line]
    first, last = timed[len(timed) // 5], timed[-1]
    steps, seconds = last["step"] - first["step"], last["seconds"] - first["seconds"]
    numbers = {"samples_per_second": steps * config["batch_size"] * config["accumulate"] / seconds}
    numbers["step_ms"] = 1e3 * seconds / steps
    busy = [line["gpu_busy"] for line in timed if "gpu_busy" in line]
    numbers["busy_percent"] = 100 * sum(busy) / len(busy) if busy else 0.0
    numbers["memory_mb"] = summary.get("peak_device_memory_mb", summary["peak_memory_mb"])
    return numbers


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("gpu", "Training rates of all projects on a GPU, with and without graphs.", rounds=1)
    flags.add_argument("--projects", nargs="+", choices=RUNS, default=list(RUNS), help="which (default: all)")
    flags.add_argument("--max-steps", type=int, help="fewer steps than each project's own number")
    flags.add_argument("--device", default="cuda", help="cpu tries the command without a GPU (default: %(default)s)")
    arguments = flags.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        flags.error("no GPU: this measures one; --device cpu only tries the command")
    tables: dict[str, Any] = {}
    for project in arguments.projects:
        device, max_steps = arguments.device, arguments.max_steps
        sides = {name: partial(rates, project, graph, device, max_steps) for name, graph in SIDES.items()}
        tables[project] = measure.summarize(measure.interleaved(sides, arguments.rounds), BASELINE)
        measure.show(project, tables[project], HEADINGS, BASELINE)
    gpu = torch.cuda.get_device_name() if arguments.device == "cuda" else None
    measure.write("gpu", argv, arguments, tables, baseline=BASELINE, ours=OURS, gpu=gpu)


if __name__ == "__main__":
    main()
