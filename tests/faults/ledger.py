"""The table of the README: python -m tests.faults.ledger prints it from results/faults.json."""

from collections import Counter
from pathlib import Path
from typing import Any

from core.files import read_json
from tests.faults.tally import WRONG

RESULT = Path(__file__).parent / "results" / "faults.json"
# Part, what of it is shown, and the heading.
_SHOWN = (
    ("storm", ("kills", "stops"), "killed by SIGKILL; stopped by SIGTERM or SIGINT; resumed"),
    ("disk", ("failing disks", "failed runs"), "a disk that is full or fails; runs that ended by it; resumed"),
    ("leftovers", ("folders",), "folders with what killed processes leave behind"),
    ("canaries", ("hostile files",), "hostile files beside canaries"),
    ("fuzz", ("inputs", "refused"), "changed files; of them refused"),
)


def markdown(path: Path = RESULT) -> str:
    """A row for each program, parser, or part; then machine and versions."""
    stored = read_json(path, "no result of the fault harness", "make it with python -m tests.faults")
    lines = [f"| what | tried | {' | '.join(WRONG)} |", f"| --- | --- |{' --- |' * len(WRONG)}"]
    for part, units, heading in _SHOWN:
        rows: dict[str, Any] = stored["parts"].get(part, {})
        for name, row in {f"**{heading}**": _sum(rows), **({} if part == "canaries" else rows)}.items():
            tried = "; ".join(f"{row['tried'].get(unit, 0):,}" for unit in units)
            wrong = " | ".join(f"{row['wrong'].get(kind, 0):,}" for kind in WRONG)
            lines.append(f"| {name} | {tried} | {wrong} |")
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
