"""The parts beside the network: calibration, the bag of words, word vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.errors import UserError
from projects.sentiment.baseline import measure_baseline
from projects.sentiment.calibration import calibration_error, fit_temperature, reliability
from projects.sentiment.data import Data, Split, encode
from projects.sentiment.reading import Row
from projects.sentiment.vectors import read_vectors
from projects.sentiment.vocab import train_vocabulary


def overconfident(factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `factor` times as large as they ought to be, with labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4_000, 3, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_overconfidence(factor: float) -> None:
    logits, labels = overconfident(factor)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(factor, rel=0.1)
    for other in (0.9 * temperature, 1.1 * temperature):
        assert F.cross_entropy(logits / temperature, labels) < F.cross_entropy(logits / other, labels)
    assert calibration_error((logits / temperature).softmax(1).numpy(), labels.numpy()) < 0.03


@pytest.mark.parametrize(("sign", "expected"), [(1, 0.1), (-1, 10.0)])
def test_the_temperature_stays_in_its_bounds(sign: int, expected: float) -> None:
    logits = sign * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == pytest.approx(expected, rel=1e-3)


def test_calibration_error_is_the_mean_distance_of_the_bins() -> None:
    probabilities = np.array([[0.95, 0.05]] * 4 + [[0.3, 0.7]] * 2, dtype=np.float32)
    labels = np.array([0, 0, 0, 1, 1, 0])
    rows = reliability(probabilities, labels)
    assert [(num, round(p, 4), share) for num, p, share in rows] == [(2, 0.7, 0.5), (4, 0.95, 0.75)]
    assert calibration_error(probabilities, labels) == pytest.approx((2 * 0.2 + 4 * 0.2) / 6)


def as_data(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> Data:
    vocabulary = train_vocabulary([text for text, _ in train], "word", 1_000, 1, 50)

    def split(pairs: list[tuple[str, str]]) -> Split:
        return encode([Row(text, label, "") for text, label in pairs], ["bad", "good"], vocabulary)

    return Data(["bad", "good"], vocabulary, split(train), split(test), split(test), [], [])


def test_a_bag_of_words_learns_words_and_pairs_but_no_farther_order() -> None:
    words = [
        (f"{a} {b} {c}", "good" if b == "fine" else "bad") for a in "pqrs" for b in ("fine", "dull") for c in "uvw"
    ]
    assert measure_baseline(as_data(words, words)) == {"val": 1.0, "test": 1.0}
    far = [(f"{a} x y z {b} x y", "good" if a == "on" else "bad") for a, b in (("on", "off"), ("off", "on"))]
    assert measure_baseline(as_data(far * 6, far))["test"] == 1.0  # "on x" tells
    order = [(f"s x {a} x y x {b} x e", "good" if a == "on" else "bad") for a, b in (("on", "off"), ("off", "on"))]
    assert measure_baseline(as_data(order * 6, order))["test"] == 0.5


def test_a_text_without_a_known_word_is_classified_too() -> None:
    train = [("fine", "good"), ("dull", "bad")] * 4
    found = measure_baseline(as_data(train, [("zyzzyva", "good"), ("fine", "good")]))
    assert found["test"] >= 0.5


VOCABULARY_TEXTS = ["fine dull film", "don't"]


def vectors_file(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("first", ["", "3 2\n"])
def test_vectors_of_known_words_are_read(first: str, tmp_path: Path) -> None:
    vocabulary = train_vocabulary(VOCABULARY_TEXTS, "word", 100, 1, 50)
    path = vectors_file(tmp_path, first + "the 1 1\nfine 0.5 -2e-1 \nn't 3 4\n. . . 7 7\nfine 9 9\n")
    rows, vectors = read_vectors(path, vocabulary, 2)
    found = {
        vocabulary.tokenizer.id_to_token(int(row)): vector.tolist() for row, vector in zip(rows, vectors, strict=True)
    }
    assert found == {"fine": [0.5, pytest.approx(-0.2)], "n't": [3, 4]}


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
    vocabulary = train_vocabulary(VOCABULARY_TEXTS, "word", 100, 1, 50)
    path = vectors_file(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read_vectors(path, vocabulary, 2)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
