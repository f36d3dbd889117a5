"""What the classifier's tests share: one smoke run with its exported files, and files of texts."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from projects.sentiment.synthetic import write_reviews
from tests.conftest import Program

WriteTable = Callable[..., Path]


class Smoke(NamedTuple):
    """A run made with --smoke and exported with --int8, and what the two programs printed."""

    run_dir: Path
    trained: "subprocess.CompletedProcess[str]"
    exported: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="session")
def _smoked() -> list[Smoke]:
    return []


@pytest.fixture
def smoke(program: Program, _smoked: list[Smoke], tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """The two programs, run once for all tests; each test of them looks at another promise."""
    if not _smoked:
        run_dir = tmp_path_factory.mktemp("smoke") / "run"
        trained = program("projects.sentiment.train", "--smoke", "--baseline", "--run-dir", run_dir)
        assert trained.returncode == 0, trained.stderr
        exported = program("projects.sentiment.export", run_dir, "--int8")
        _smoked.append(Smoke(run_dir, trained, exported))
    return _smoked[0]


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
