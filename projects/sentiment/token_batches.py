"""Runs an exported file on texts of any length: those of like length share a batch. numpy alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.inference import OnnxModel
from projects.sentiment.config import ModelFacts
from projects.sentiment.tokenizer import PAD

_MAX_TOKENS = 16_384  # of one batch, padding counted
_MAX_TEXTS = 256  # of one batch


def run_in_batches(
    model: OnnxModel[ModelFacts], encoded: Sequence[NDArray[np.int64]]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Probabilities [C] and attention [length] of each text; texts of like length share a batch."""
    results: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
    for numbers in _batches([len(tokens) for tokens in encoded]):
        longest = max(len(encoded[number]) for number in numbers)
        tokens = np.full((len(numbers), longest), PAD, dtype=np.int64)
        for place, number in enumerate(numbers):
            tokens[place, : len(encoded[number])] = encoded[number]
        outputs = model.run(tokens=tokens)
        for place, number in enumerate(numbers):
            length = len(encoded[number])
            results[number] = outputs["probabilities"][place], outputs["attention"][place, :length]
    return [results[number] for number in range(len(encoded))]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of texts, the short ones first, in batches of at most _MAX_TEXTS texts and _MAX_TOKENS tokens."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda k: lengths[k]):
        if batch and (len(batch) == _MAX_TEXTS or (len(batch) + 1) * lengths[number] > _MAX_TOKENS):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
