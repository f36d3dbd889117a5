"""Runs all benchmarks, one after the other: python -m tests.benchmarks [--quick] writes results/<name>.json."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PLAN: dict[str, list[str]] = {
    "step": [],
    "images": ["--ladder"],
    "onnx": [],
    "checkpoint": [],
    "text": [],
    "kernels": [],
    "transfer": [],
    "loader": [],
    "browser": [],
    "serving": [],
}
QUICK: dict[str, list[str]] = {
    "step": ["--rounds", "3"],
    "images": ["--rounds", "1", "--steps", "4"],
    "onnx": ["--rounds", "3"],
    "checkpoint": ["--rounds", "3", "--large-rounds", "0"],
    "text": ["--rounds", "1", "--steps", "4"],
    "kernels": ["--rounds", "3", "--repeats", "2"],
    "transfer": ["--rounds", "1", "--images", "24"],
    "loader": ["--rounds", "1", "--steps", "3"],
    "browser": ["--rounds", "1", "--repeats", "1"],
    "serving": ["--rounds", "1", "--requests", "40", "--mixed", "100", "--networks", "fast"],
}


def main() -> int:
    """The command line; the exit code is 1 where a benchmark failed, after the others have run."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Run all benchmarks.")
    parser.add_argument("--only", choices=PLAN, nargs="+", default=list(PLAN), help="run these")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that all run, not how fast they are")
    parser.add_argument("--folder", type=Path, default=HERE / "results", help="where to write (default: results/ here)")
    arguments = parser.parse_args()
    root = HERE.parent.parent
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(root)}
    failed = []
    for name in arguments.only:
        flags = (QUICK if arguments.quick else PLAN)[name]
        command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}", *flags]
        output = (arguments.folder / f"{name}.json").resolve()
        print(f"== {' '.join(['python', *command[1:]])}", flush=True)
        if subprocess.run([*command, "--output", str(output)], env=environment, cwd=root).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
