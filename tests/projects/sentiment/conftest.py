"""What the classifier's tests share: files of texts."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from projects.sentiment.synthetic import write_reviews
from tests.conftest import ROOT

WriteTable = Callable[..., Path]


@pytest.fixture
def real_texts() -> Path:
    """The folder of the real data, in which sst2/ and reviews/ need no unpacking; skips where it is missing."""
    folder = Path(os.environ.get("ATELIER_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "sst2").is_dir():
        pytest.skip(f"real data not found in {folder}; set ATELIER_REAL_DATA")
    return folder


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
