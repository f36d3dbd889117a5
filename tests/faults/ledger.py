"""The table of the README: python -m tests.faults.ledger prints it from results/faults.json."""

from collections import Counter
from pathlib import Path
from typing import Any

from core.files import read_json
from tests.faults.tally import WRONG

RESULT = Path(__file__).parent / "results" / "faults.json"
# Part, what of it is shown, the heading, and what its rows are where the number of them is told.
_SHOWN = (
    ("storm", ("kills", "stops"), "SIGKILLs; SIGTERMs and SIGINTs", "programs"),
    ("disk", ("failing disks", "failed runs"), "disks that fail or fill; runs that ended by it", "programs"),
    ("leftovers", ("folders",), "folders with leftovers of killed processes", "programs"),
    ("canaries", ("hostile files",), "hostile files beside canaries", ""),
    ("fuzz", ("inputs", "refused"), "changed files; of them refused", "parsers"),
)


def markdown(path: Path = RESULT) -> str:
    """A row for each part, with all that it tried and all that went wrong; then machine and versions."""
    stored = read_json(path, "no result of the fault harness", "make it with python -m tests.faults")
    lines = [f"| part | tried | number | {' | '.join(WRONG)} |", f"| --- | --- | --- |{' --- |' * len(WRONG)}"]
    for part, units, heading, rows_are in _SHOWN:
        rows: dict[str, Any] = stored["parts"].get(part, {})
        num_tried = sum(bool(row["tried"]) for row in rows.values())
        over = f", {num_tried} {rows_are}" if rows_are else ""
        total = _sum(rows)
        tried = "; ".join(f"{total['tried'].get(unit, 0):,}" for unit in units)
        wrong = " | ".join(f"{total['wrong'].get(kind, 0):,}" for kind in WRONG)
        lines.append(f"| {part} | {heading}{over} | {tried} | {wrong} |")
    about = stored["environment"]
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "torch", "onnxruntime") if name in about)
    return "\n".join([*lines, "", f"{about['processor']}; {versions}; {stored['minutes']:,.0f} minutes."])


def _sum(rows: dict[str, Any]) -> dict[str, Any]:
    """The rows of a part together."""
    total: dict[str, Counter[str]] = {"tried": Counter(), "wrong": Counter()}
    for row in rows.values():
        for kind in total:
            total[kind].update(row[kind])
    return total


if __name__ == "__main__":
    print(markdown())
