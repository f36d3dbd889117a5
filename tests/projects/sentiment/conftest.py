"""What the classifier's tests share: one smoke run with its exported files, and files of texts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from projects.sentiment.synthetic import write_reviews
from tests.conftest import Once, Program
from tests.smoke import Smoke, smoke_run

WriteTable = Callable[..., Path]


@pytest.fixture
def smoke(program: Program, once: Once) -> Smoke:
    """The smoke run with --baseline and its export with --int8."""
    return smoke_run("sentiment", program, once, train=["--baseline"], export=["--int8"])


@pytest.fixture
def write_table(tmp_path: Path) -> WriteTable:
    """Writes generated reviews to a .csv, .tsv or .jsonl of the given column names; extra lines go to the end."""

    def write(
        name: str, num: int = 40, header: Sequence[str] = ("text", "label"), extra: bytes = b"", seed: int = 0
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pairs = [(text, ("bad", "good")[y]) for text, y in zip(*write_reviews(num, seed), strict=True)]
        if path.suffix == ".jsonl":
            lines = [json.dumps(dict(zip(header, pair, strict=True))) for pair in pairs]
        elif path.suffix == ".tsv":
            lines = ["\t".join(header), *("\t".join(pair) for pair in pairs)]
        else:
            lines = [",".join(header), *(f'"{text}",{label}' for text, label in pairs)]
        path.write_bytes("\n".join(lines).encode() + b"\n" + extra)
        return path

    return write


def summary(run_dir: Path) -> dict[str, Any]:
    """summary.json without settings, and without what two equal runs may differ in."""
    numbers = json.loads((run_dir / "summary.json").read_text("utf-8"))
    return {name: value for name, value in numbers.items() if name != "config" and "seconds" not in name}
