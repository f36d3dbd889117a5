"""An exported file at work on texts: probabilities, and how much each word weighed; infer, serve and evaluate use it.

numpy, tokenizers and onnxruntime; no torch. A word's weight is how much the label's probability falls when the word is
replaced by the unknown one; in a text of many words only those with the most attention are tried.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.inference import OnnxModel
from projects.sentiment.config import ModelFacts
from projects.sentiment.token_batches import run_in_batches
from projects.sentiment.tokenizer import UNKNOWN, Tokenizer, read_tokenizer

Member = tuple[OnnxModel[ModelFacts], Tokenizer]
_MAX_TRIED = 32
_CHUNK = 1_024  # texts that share batches


class Prediction(NamedTuple):
    """Probabilities [C] of a text; its words, and for each its attention, and its weight, zero where not tried.

    parts: the probabilities of each file that was averaged, [files, C].
    """

    probabilities: NDArray[Any]
    words: list[str]
    weights: NDArray[np.float64]
    attention: NDArray[np.float64]
    parts: NDArray[Any]


def tokenizer_of(model: OnnxModel[ModelFacts]) -> Tokenizer:
    """The tokenizer that a file carries. Raises UserError where it is none, or does not fit the graph."""
    facts = model.facts
    try:
        tokenizer = read_tokenizer(facts.tokenizer, facts.max_length)
    except Exception as error:  # the package raises bare exceptions
        raise UserError(
            "not a usable ONNX file", f"{model.path} (its tokenizer: {error})", "export it again"
        ) from error
    num_classes = model.session.get_outputs()[0].shape[-1]
    if facts.max_length < 2 or len(tokenizer) != facts.num_words or len(facts.classes) != num_classes:
        raise UserError("not a usable ONNX file", f"{model.path} (its facts disagree)", "export it again")
    return tokenizer


def classify(model: OnnxModel[ModelFacts], texts: Sequence[str], weigh: bool) -> Iterator[Prediction]:
    """Predictions in the order of texts. weigh: whether to compute the words' weights."""
    return classify_with(model, tokenizer_of(model), texts, weigh)


def classify_with(
    model: OnnxModel[ModelFacts], tokenizer: Tokenizer, texts: Sequence[str], weigh: bool
) -> Iterator[Prediction]:
    """classify with the file's tokenizer, which takes a while to read."""
    return classify_together([(model, tokenizer)], texts, weigh)


def classify_together(members: Sequence[Member], texts: Sequence[str], weigh: bool) -> Iterator[Prediction]:
    """Predictions in the order of texts, the mean over several files. weigh: whether to compute the words' weights."""
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        encoded = [tokenizer.encode(chunk) for _, tokenizer in members]
        outputs = [run_in_batches(model, tokens) for (model, _), tokens in zip(members, encoded, strict=True)]
        for place, text in enumerate(chunk):
            split = [tokenizer.words(text) for _, tokenizer in members]
            words = split[0][0]  # the same for all: a piece of a word belongs to it
            parts = np.stack([its_outputs[place][0] for its_outputs in outputs])
            attention = np.mean(
                [
                    np.bincount(numbers, weights=its_outputs[place][1], minlength=len(words))
                    for (_, numbers), its_outputs in zip(split, outputs, strict=True)
                ],
                axis=0,
            )
            probabilities, weights = parts.mean(0), np.zeros(len(words))
            if weigh:
                tried = np.argsort(-attention, kind="stable")[:_MAX_TRIED]
                label = probabilities.argmax()
                without = [
                    run_in_batches(model, [np.where(numbers == word, UNKNOWN, tokens[place]) for word in tried])
                    for (model, _), (_, numbers), tokens in zip(members, split, encoded, strict=True)
                ]
                others = np.mean([[other[label] for other, _ in its] for its in without], axis=0)
                weights[tried] = probabilities[label] - others
            yield Prediction(probabilities, words, weights, attention, parts)
