"""Word vectors are read for the tokenizer's words, and a line that is none is named."""

from pathlib import Path

import pytest

from core.errors import UserError
from projects.sentiment.tokenizer import train_tokenizer
from projects.sentiment.vectors import read_vectors

TEXTS = ["fine dull film", "don't"]


def vectors_file(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("first", ["", "3 2\n"])
def test_vectors_of_known_words_are_read(first: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, "word", 100, 1, 50)
    path = vectors_file(tmp_path, first + "the 1 1\nfine 0.5 -2e-1 \nn't 3 4\n. . . 7 7\nfine 9 9\n")
    rows, vectors = read_vectors(path, tokenizer, 2)
    by_word = {
        tokenizer.trained.id_to_token(int(row)): vector.tolist() for row, vector in zip(rows, vectors, strict=True)
    }
    assert by_word == {"fine": [0.5, pytest.approx(-0.2)], "n't": [3, 4]}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("the 1 1\nfine 1\n", "line 2: 1 numbers; there must be 2"),
        ("the 1 1\nfine 1 2 3\n", "line 2: 3 numbers; there must be 2"),
        ("fine 1 x\n", "line 1: the vector of fine"),
        ("fine 1 nan\n", "line 1: the vector of fine"),
        ("fine 1 1e99\n", "line 1: the vector of fine"),
        ("the 1 1\n\n", "line 2"),
        ("the 1 1\n", "no word of the training texts"),
        ("", "no word of the training texts"),
        (b"\xff\xfe\x00\x01", "line 1"),
    ],
)
def test_a_line_that_is_no_vector_is_named(content: bytes | str, named: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, "word", 100, 1, 50)
    path = vectors_file(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read_vectors(path, tokenizer, 2)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
