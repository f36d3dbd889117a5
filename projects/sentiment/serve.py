"""Serves exported files over HTTP: python -m projects.sentiment.serve MODEL.onnx, then open http://127.0.0.1:8000.

numpy, tokenizers, onnxruntime and FastAPI; no torch.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.config import option
from core.errors import UserError
from core.inference import OnnxModel
from core.serving.program import run_serving
from core.serving.service import Asked, Record, Service
from projects.sentiment.classifying import classify_with, tokenizer_of
from projects.sentiment.config import TASK, Config, ModelFacts
from projects.sentiment.infer import to_record
from projects.sentiment.tables import Fault, Row, add_row


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request may set."""

    top: int | None = option(
        None, "words to name, the heaviest first; 0 is fastest; none: all, in the order of the text", low=0
    )


Request = Asked[str, Options]


class Classifier(OnnxModel[ModelFacts]):
    """An exported file with its tokenizer. Raises UserError."""

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(path, task=TASK, facts=ModelFacts, threads=threads)
        self.tokenizer = tokenizer_of(self)


def read(_: Classifier, text: str) -> str:
    """A text as infer takes it. Raises UserError."""
    rows: list[Row] = []
    faults: list[Fault] = []
    add_row((text, None), "the text", rows, faults)
    if faults:
        raise UserError(faults[0].what, faults[0].where, "give another")
    return rows[0].text


def batch_key(request: Request) -> Hashable:
    """Texts of like length share a batch."""
    return len(request.input).bit_length(), request.options.top == 0


def predict(model: Classifier, requests: Sequence[Request]) -> Sequence[Record]:
    """Label, probabilities and words of each text."""
    texts, weigh = [each.input for each in requests], requests[0].options.top != 0
    records = []
    predictions = classify_with(model, model.tokenizer, texts, weigh)
    for (text, options), prediction in zip(requests, predictions, strict=True):
        heaviest = np.argsort(-prediction.weights, kind="stable")[: options.top]
        words = range(len(prediction.words)) if options.top is None else heaviest
        records.append(to_record(text, prediction, model.facts.classes, words))
    return records


SERVICE = Service(kind="text", options=Options, load=Classifier, read=read, predict=predict, batch_key=batch_key)

if __name__ == "__main__":
    run_serving(Config, SERVICE)
