"""What every study ends with: a table, a file and a plot. This module loads no torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.files import write_json

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What a study found. rows: one for each thing compared. shown: the columns of the table and their formats.

    draw: writes the plot to a path. more: further numbers of the file, such as curves.
    """

    rows: Sequence[Row]
    shown: Mapping[str, str]
    draw: Callable[[Path], None]
    more: Mapping[str, Any]

    def write(self, folder: Path, name: str, about: Mapping[str, Any]) -> None:
        """Writes NAME.json and NAME.png. about: command, settings and environment."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{name}.json", {**about, "shown": self.shown, "rows": self.rows, **self.more})
        self.draw(folder / f"{name}.png")


def markdown(rows: Sequence[Row], shown: Mapping[str, str]) -> str:
    """The rows as a Markdown table. shown: keys with the format of their numbers; a missing number is a dash."""
    lines = [f"| {' | '.join(key.replace('_', ' ') for key in shown)} |", f"|{' --- |' * len(shown)}"]
    lines += [f"| {' | '.join(_cell(row.get(key), form) for key, form in shown.items())} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any, form: str) -> str:
    """A value as the table shows it."""
    return "–" if value is None else format(value, form)


def finite(value: float) -> float | None:
    """A number as JSON can hold it: None for NaN and infinity."""
    return value if math.isfinite(value) else None
