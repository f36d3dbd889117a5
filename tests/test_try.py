"""What the commands under "Try" in each project's README give is stored, or a test asks for it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.projects.contract import PROJECTS

_FEWEST = 5


def rows(project: str) -> list[tuple[str, str]]:
    """Command and what comes out, of the last section of a README."""
    section = (ROOT / "projects" / project / "README.md").read_text("utf-8").rpartition("\n## ")[2]
    assert section.startswith("Try\n"), "a README ends with what to try"
    return re.findall(r"(?m)^\| `(python -m [^`]+)` \| (.+) \|$", section)


@pytest.mark.parametrize("project", PROJECTS)
def test_what_comes_out_of_the_commands_to_try_is_stored_or_tested(project: str) -> None:
    found = rows(project)
    assert len(found) >= _FEWEST
    for command, text in found:
        links = [ROOT / "projects" / project / link for link in re.findall(r"\]\(([^)]+)\)", text)]
        assert links, command
        numbers = set(re.findall(r"(?<![\w.])\d+\.\d+", re.sub(r"\(.*?\)", "", text)))
        for path in links:
            if path.suffix == ".json":
                stored = json.loads(path.read_text("utf-8"))
                assert set(command.split()) <= set(stored["command"].split()), command
                values = list(every_number(stored))
                numbers -= {text for text in numbers if text in {f"{value:.{places(text)}f}" for value in values}}
            else:
                source = path.read_text("utf-8")
                numbers -= {text for text in numbers if re.search(rf"(?<![\d.]){re.escape(text)}(?!\d)", source)}
        assert not numbers, f"{command}: {numbers} stand in none of {[path.name for path in links]}"


def places(number: str) -> int:
    """Digits after the point."""
    return len(number.partition(".")[2])


def every_number(data: Any) -> Iterator[float]:
    """All numbers in plain data."""
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from every_number(value)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield data
