"""The READMEs' tables are those of the stored results, and the commands they name exist."""

import re
from pathlib import Path

import pytest

from core.config import read_json
from core.results import table
from tests.benchmarks import ledger
from tests.conftest import ROOT

READMES = [ROOT / "README.md", *sorted((ROOT / "projects").glob("*/README.md"))]
BLOCK = r"<!-- {}[^\n]*-->\n(.*?)\n?<!-- end of {} -->"


def block(readme: Path, name: str) -> str:
    """What stands between a README's marks."""
    found = re.search(BLOCK.format(name, name), readme.read_text("utf-8"), flags=re.DOTALL)
    assert found is not None, f"{readme} has no block {name}"
    return found.group(1)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_results_are_the_stored_ones(readme: Path) -> None:
    folder = readme.parent if readme.parent != ROOT else ROOT / "projects" / "*"
    files = sorted(ROOT.glob(str((folder / "results" / "*.json").relative_to(ROOT))))
    assert files
    stored = [read_json(path, "unreadable result", "collect it again") for path in files]
    assert block(readme, "results") == table(stored)
    for result in stored:
        assert result["commits"] != ["unknown"]


def test_benchmarks_are_the_stored_ones() -> None:
    assert block(ROOT / "README.md", "benchmarks") == ledger.markdown()


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_program_and_file_that_is_named_is_there(readme: Path) -> None:
    text = readme.read_text("utf-8")
    for module in set(re.findall(r"-m ((?:core|projects|cuda_ext|tests)[.\w]*)", text)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (readme.parent / link).exists(), link
