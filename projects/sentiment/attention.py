"""What a network looks at: test texts with their words the darker, the larger their share in the pooled state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from core import plots
from core.errors import printable
from core.evaluation import evaluating
from projects.sentiment.data import TextSet
from projects.sentiment.model import Ensemble
from projects.sentiment.tokenizer import Tokenizer

_NUM_TEXTS, _MOST_TOKENS = 6, 40  # of each kind, right and wrong; and of a text that is drawn
_CHARACTERS_A_LINE, _INCHES_A_CHARACTER, _INCHES_A_LINE = 110, 0.083, 0.26


class _Word(NamedTuple):
    """column, line: where it is drawn, in characters and lines. darkness: from 0 to 1."""

    text: str
    column: int
    line: int
    darkness: float


def plot_attention(
    path: Path,
    texts: TextSet,
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
    tokenizer: Tokenizer,
    network: Ensemble,
) -> None:
    """Draws short texts whose label is predicted with the most confidence: some that are right, some that are wrong.

    probabilities: float32 [N, C]. A word's share is the sum of its tokens'. Nothing is drawn where all texts are long.
    """
    rows = _chosen(texts, probabilities)
    if not rows:
        return
    tokens = texts.padded(torch.tensor(rows))
    with evaluating(network):
        attention = network.explain(tokens)[1].float().cpu().numpy()
    lines: list[tuple[str, list[_Word]]] = []
    for row, weights in zip(rows, attention, strict=True):
        label = probabilities[row].argmax()
        right = "right" if label == texts.labels[row] else f"is {classes[texts.labels[row]]}"
        words, numbers = tokenizer.words(texts.texts[row])
        shares = np.bincount(numbers, weights[: len(numbers)], minlength=len(words))
        least, most = shares.min(), shares.max()
        title = f"{classes[label]} {probabilities[row].max():.1%}, {right}; attention {least:.1%} to {most:.1%}"
        lines.append((printable(title), _placed(words, (shares - least) / max(most - least, 1e-9))))
    _draw(path, lines)


def _chosen(texts: TextSet, probabilities: NDArray[np.float32]) -> list[int]:
    """The rows of the texts to draw: of each predicted label in turn the one with the most confidence."""
    order = np.argsort(-probabilities.max(1), kind="stable")
    order = order[(texts.lengths.numpy() <= _MOST_TOKENS)[order]]
    labels = probabilities[order].argmax(1)
    is_right, place = labels == texts.labels[order], np.zeros(len(order), np.int64)
    chosen: list[int] = []
    for kind in (is_right, ~is_right):
        for label in np.unique(labels):
            of_label = kind & (labels == label)
            place[of_label] = np.arange(of_label.sum())
        chosen += order[kind][np.argsort(place[kind], kind="stable")][:_NUM_TEXTS].tolist()
    return chosen


def _placed(words: Sequence[str], darkness: NDArray[np.float64]) -> list[_Word]:
    """Words in lines, as a text in a font of equal widths."""
    placed, column, line = [], 0, 0
    for word, dark in zip(map(printable, words), darkness, strict=True):
        if column and column + len(word) > _CHARACTERS_A_LINE:
            column, line = 0, line + 1
        placed.append(_Word(word, column, line, float(dark)))
        column += len(word) + 1
    return placed


def _draw(path: Path, texts: Sequence[tuple[str, Sequence[_Word]]]) -> None:
    """Writes the picture."""
    num_lines = sum(words[-1].line + 2.6 for _, words in texts)
    drawn, grid = plots.figure(_CHARACTERS_A_LINE * _INCHES_A_CHARACTER, num_lines * _INCHES_A_LINE + 0.3)
    axis: Any = grid[0, 0]
    axis.set(xlim=(-1, _CHARACTERS_A_LINE + 1), ylim=(num_lines, 0), title="Attention of the network to each word")
    axis.axis("off")
    top = 0.5
    for title, words in texts:
        axis.text(0, top, title, fontsize=9, fontweight="bold", va="center")
        for word in words:
            box = {"facecolor": (1.0, 0.45, 0.0, 0.85 * word.darkness), "edgecolor": "none", "pad": 1.5}
            axis.text(
                word.column, top + 1 + word.line, word.text, family="monospace", fontsize=9, va="center", bbox=box
            )
        top += words[-1].line + 2.6
    plots.save_figure(drawn, path)
