"""Long runs of the fault harness: python -m tests.faults --minutes N. What it found stands in results/faults.json."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from core.command_line import Parser, positive_number
from core.distributed import World
from core.environment import environment
from core.errors import RunError, run_command
from core.files import read_json, write_json
from tests.faults.ledger import RESULT, markdown
from tests.faults.tally import Tally
from tests.faults.turns import PARTS

_IN_MEMORY = Path("/dev/shm")  # waiting for a busy disk takes most of a tiny run's time


def main() -> None:
    """Tries what no earlier run has tried, part by part in turns, until the time is over."""
    parser = Parser("tests.faults", "Look for faults by kills, failing disks, leftovers, hostile and changed files.")
    parser.add_argument("--minutes", type=positive_number, default=5, help="how long (default: 5)")
    parser.add_argument("--only", choices=list(PARTS), nargs="+", default=list(PARTS), help="these parts alone")
    parser.add_argument("--output", type=Path, default=RESULT, help="the result file, to which is added")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored: dict[str, Any] = {"parts": {}, "commits": [], "minutes": 0.0}
    if arguments.output.exists():
        stored = read_json(arguments.output, "unreadable result", "delete it")
    now = environment(World())
    command = ["python", "-m", "tests.faults", "--minutes", f"{arguments.minutes:g}"]
    stored |= {"command": command, "environment": {name: value for name, value in now.items() if name != "command"}}
    stored["commits"] = sorted({*stored["commits"], str(now["commit"])})
    num_before, before, began = _num_wrong(stored), stored["minutes"], time.monotonic()
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as folder:
        while (end := began + 60 * arguments.minutes) > time.monotonic():
            for name in arguments.only:
                for _ in _turn(name, stored, Path(folder), end):
                    stored["minutes"] = round(before + (time.monotonic() - began) / 60, 1)
                    arguments.output.parent.mkdir(exist_ok=True)
                    write_json(arguments.output, stored)
    print(markdown(arguments.output))
    if num := _num_wrong(stored) - num_before:
        raise RunError("faults found", num, f"see the cases in {arguments.output}")


def _turn(name: str, stored: dict[str, Any], folder: Path, end: float) -> Iterator[None]:
    """Has a part try the next number of each of its rows, and adds what it counted, row by row."""
    part, rows = PARTS[name], stored["parts"].setdefault(name, {})
    for row_name in part.rows:
        row = rows.setdefault(row_name, {"next": 0, "tried": {}, "wrong": {}, "cases": []})
        others_wait = any(r["tried"].get(part.unit, 0) < part.goal for r in rows.values())
        if row["next"] >= part.last or (row["tried"].get(part.unit, 0) >= part.goal and others_wait):
            continue
        if time.monotonic() > end:
            return
        tally = Tally()
        tally.merge(row["tried"], row["wrong"], row["cases"])
        num_cases = len(tally.cases)
        part.block(row_name, row["next"], folder, tally)
        for case in tally.cases[num_cases:]:
            print(case, flush=True)
        row.update(next=row["next"] + 1, tried=dict(tally.tried), wrong=dict(tally.wrong), cases=tally.cases)
        yield


def _num_wrong(stored: dict[str, Any]) -> int:
    """Everything in a result that went wrong."""
    return sum(sum(row["wrong"].values()) for rows in stored["parts"].values() for row in rows.values())


if __name__ == "__main__":
    run_command(main)
