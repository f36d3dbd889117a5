"""Long runs of the fuzzer: python -m tests.faults --minutes N. Results stand in tests/faults/results/fuzzing.json."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from core.command_line import Parser, positive_number
from core.environment import git_commit
from core.errors import RunError, run_command
from core.files import read_json, write_json
from tests.faults.fuzzing import fuzz
from tests.faults.parsers import PARSERS

RESULT = Path(__file__).parent / "results" / "fuzzing.json"
BLOCK = 200


def main() -> None:
    """Tries inputs of all parsers in turns, from the first that no earlier run has tried."""
    parser = Parser("tests.faults", "Fuzz every parser, and store how it went.")
    parser.add_argument("--minutes", type=positive_number, default=5, help="how long")
    parser.add_argument("--parser", choices=list(PARSERS), help="only this one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes
    stored: dict[str, Any] = read_json(RESULT, "unreadable result", "delete it") if RESULT.exists() else {"parsers": {}}
    chosen = [arguments.parser] if arguments.parser else list(PARSERS)
    num_others = 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            for name in chosen:
                row = stored["parsers"].setdefault(name, {"inputs": 0, "refused": 0, "others": {}})
                report = fuzz(name, range(row["inputs"], row["inputs"] + BLOCK), Path(folder) / "work")
                row["inputs"] += report.inputs
                row["refused"] += report.refused
                for kind, count in report.others.items():
                    row["others"][kind] = row["others"].get(kind, 0) + count
                    print(f"{name}: {kind}, first with input {report.first[kind]}", flush=True)
                num_others += sum(report.others.values())
            write_json(RESULT, {**stored, "commit": git_commit()})
    for name, row in stored["parsers"].items():
        print(
            f"{name:<22}{row['inputs']:>8,} inputs{row['refused']:>8,} refused{sum(row['others'].values()):>5} others"
        )
    if num_others:
        raise RunError("inputs that were neither read nor refused", num_others, "see the lines above")


if __name__ == "__main__":
    run_command(main)
