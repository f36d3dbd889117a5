"""A bag of words to compare with: logistic regression on weighted single words and pairs of neighbors.

Weights: 1 + log of the count in the text, times the logarithm of the inverse share of texts that have the word, each
text scaled to length 1 (Salton and Buckley 1988). Fitted by L-BFGS; the strength of the L2 penalty is chosen on the
validation texts.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.sentiment.data import Data, TextSet
from projects.sentiment.tokenizer import split_words

_MIN_TEXTS = 2  # a word or pair has to be in so many training texts
_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)  # inverse weights of the L2 penalty
_MAX_ITERATIONS = 60


class _Bags(NamedTuple):
    """Texts as bags of words, one after the other: numbers of words int64, their weights float32, and where each text
    begins, int64 [N]."""

    numbers: Tensor
    weights: Tensor
    starts: Tensor


def measure_baseline(data: Data) -> dict[str, float]:
    """Accuracy on validation, and on test where there is one, of the best of a few penalties."""
    counted = [_count_words(text) for text in data.train.texts]
    in_texts = Counter(word for each in counted for word in each)
    known = {word: n for n, word in enumerate(sorted(w for w, num in in_texts.items() if num >= _MIN_TEXTS))}
    rarity = torch.zeros(len(known) + 1)
    for word, number in known.items():
        rarity[number] = torch.log(torch.tensor((1 + len(counted)) / (1 + in_texts[word]))) + 1
    held_out: dict[str, TextSet] = {"val": data.val, **({} if data.test is None else {"test": data.test})}
    train = _to_bags(counted, known, rarity)
    others = {
        name: _to_bags([_count_words(text) for text in texts.texts], known, rarity) for name, texts in held_out.items()
    }
    labels = torch.from_numpy(data.train.labels)
    best: dict[str, float] = {}
    for strength in _STRENGTHS:
        table = _fit_logistic(train, labels, len(known) + 1, len(data.classes), strength)
        right = {
            name: _accuracy(table, others[name], torch.from_numpy(texts.labels)) for name, texts in held_out.items()
        }
        if right["val"] > best.get("val", -1.0):
            best = right
    return best


def _count_words(text: str) -> Counter[str]:
    """How often each word and each pair of neighbors is in a text."""
    words = split_words(text)
    return Counter([*words, *(f"{a} {b}" for a, b in pairwise(words))])


def _to_bags(counted: Sequence[Counter[str]], known: dict[str, int], rarity: Tensor) -> _Bags:
    """Counted texts as weighted bags of known words; a text without one has the last number, of weight zero."""
    unknown = len(known)
    rows = [[(known[word], num) for word, num in each.items() if word in known] or [(unknown, 1)] for each in counted]
    lengths = torch.tensor([len(row) for row in rows])
    numbers = torch.tensor([number for row in rows for number, _ in row])
    counts = torch.tensor([num for row in rows for _, num in row], dtype=torch.float32)
    weights = (1 + counts.log()) * rarity[numbers]
    norms = torch.zeros(len(rows)).index_add_(0, torch.arange(len(rows)).repeat_interleave(lengths), weights**2).sqrt()
    return _Bags(numbers, weights / norms.clamp(min=1e-12).repeat_interleave(lengths), lengths.cumsum(0) - lengths)


def _fit_logistic(train: _Bags, labels: Tensor, num_words: int, num_classes: int, strength: float) -> Tensor:
    """Weights [num_words, num_classes] and, in a last row, biases; the larger the strength, the weaker the penalty."""
    table = torch.zeros(num_words + 1, num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([table], max_iter=_MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = table[:-1].square().sum() / (2 * strength * len(labels))
        loss = F.cross_entropy(_logits(table, train), labels) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return table.detach()


def _logits(table: Tensor, texts: _Bags) -> Tensor:
    """Logits [N, num_classes] of bags."""
    summed = F.embedding_bag(texts.numbers, table[:-1], texts.starts, mode="sum", per_sample_weights=texts.weights)
    return summed + table[-1]


def _accuracy(table: Tensor, texts: _Bags, labels: Tensor) -> float:
    """Share of texts whose label has the largest score."""
    return float((_logits(table, texts).argmax(1) == labels).float().mean())
