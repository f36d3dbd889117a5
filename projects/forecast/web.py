"""Writes a page that runs an exported file in the browser: python -m projects.forecast.web MODEL.onnx --output DIR.

DIR is a folder for any static host; view.js, compute.js and series.js are this project's part of the page.
"""

import re

from core.errors import UserError
from core.web import run_web
from projects.forecast.config import TASK, Config, ModelFacts

_DIRECTIVES = "YmdHMS"  # that series.js reads


def check_times(facts: ModelFacts) -> None:
    """Raises UserError for timestamps that the page could not read or continue."""
    unknown = re.findall(r"%([^" + _DIRECTIVES + r"])", facts.time_format or "")
    if unknown:
        where = f"--time-format {facts.time_format}: %{unknown[0]}"
        raise UserError("a format of times that the page cannot read", where, f"it knows %{', %'.join(_DIRECTIVES)}")
    if facts.frequency.unit == "microsecond" and facts.frequency.count % 1000:
        raise UserError("rows that are no whole milliseconds apart", facts.frequency, "the page reads no microseconds")


if __name__ == "__main__":
    run_web(Config, ModelFacts, TASK, check_times)
