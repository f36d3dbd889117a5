"""Writes a page that runs an exported file in the browser: python -m projects.sentiment.web MODEL.onnx --output DIR.

DIR is a folder for any static host; view.js, compute.js and tokenizer.js are this project's part of the page.
"""

import json
from typing import Any

from core.errors import UserError
from core.web import run_web
from projects.sentiment.config import TASK, Config, ModelFacts
from projects.sentiment.tokenizer import Kind, train_tokenizer

_KINDS: dict[str, Kind] = {"WordLevel": "word", "BPE": "bpe"}
_LEARNED = ("vocab", "merges")


def check_tokenizer(facts: ModelFacts) -> None:
    """Raises UserError for a tokenizer that differs from those of tokenizer.py in more than what it has learned."""
    todo = "export a run of this version"
    try:
        given: dict[str, Any] = json.loads(facts.tokenizer)
        kind = given["model"]["type"]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError("a tokenizer that cannot be read", type(error).__name__, todo) from error
    if kind not in _KINDS:
        known = " and ".join(_KINDS)
        raise UserError("a tokenizer that the page does not know", kind, f"it knows {known}")
    expected = json.loads(train_tokenizer(["a"], _KINDS[kind], 16, 1, 2).to_json())
    for tokenizer in (given, expected):
        tokenizer["model"] = {key: value for key, value in tokenizer["model"].items() if key not in _LEARNED}
    for name in expected:
        if given.get(name) != expected[name]:
            raise UserError(f"a tokenizer whose {name} the page does not know", json.dumps(given.get(name)), todo)


if __name__ == "__main__":
    run_web(Config, ModelFacts, TASK, check_tokenizer)
