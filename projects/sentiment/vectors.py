"""Word vectors to start training from, from a file in GloVe's format: a word and its numbers on each line.

Pennington et al. 2014, https://nlp.stanford.edu/projects/glove/. A first line of two whole numbers, as word2vec's and
fastText's text files have, is skipped.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.text_files import numbered_lines
from projects.sentiment.tokenizer import SPECIALS, Tokenizer

_LARGEST = 1e6


def read_vectors(path: Path, tokenizer: Tokenizer, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers of the tokenizer's words that the file has, and their vectors, float32 [N, size].

    Raises UserError, naming the line, for a line that is not a word and `size` finite numbers.
    """
    wanted = {word: n for word, n in tokenizer.trained.get_vocab().items() if word not in SPECIALS}
    vectors: dict[int, NDArray[np.float32]] = {}
    for line, text in numbered_lines(path):
        if line == 1 and len(text.split()) == 2 and all(part.isdigit() for part in text.split()):
            continue
        word, *values = text.rstrip().rsplit(" ", size)
        too_many = " " in word and _is_number(word.rsplit(" ", 1)[1])  # a few words do have spaces
        if len(values) != size or not word or too_many:
            where = f"{path} line {line}: {len(text.split()) - 1} numbers"
            raise UserError("not a word and its vector", where, f"there must be {size} (--embedding-size)")
        number = wanted.get(word)
        if number is None or number in vectors:
            continue
        try:
            vector = np.asarray([float(value) for value in values])
        except ValueError:
            vector = np.full(size, np.nan)
        if not (np.abs(vector) < _LARGEST).all():  # false for NaN too
            where = f"{path} line {line}: the vector of {word}"
            raise UserError("a vector that is not all finite numbers", where, "repair or remove the line")
        vectors[number] = vector.astype(np.float32)
    if not vectors:
        raise UserError("no word of the training texts has a vector", path, "give vectors of the texts' language")
    numbers = np.asarray(sorted(vectors), dtype=np.int64)
    return numbers, np.stack([vectors[number] for number in numbers.tolist()])


def _is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
