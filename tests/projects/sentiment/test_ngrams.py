"""The layer over n-grams learns words, pairs and triples of neighbors, and no farther order."""

import torch

from projects.sentiment.data import TextSet, encode
from projects.sentiment.ngrams import fit_ngrams
from projects.sentiment.tables import Row
from projects.sentiment.temperature import fit_mixture
from projects.sentiment.tokenizer import train_tokenizer


def accuracy(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> float:
    """Of a layer that is fitted on the first texts, on the second ones."""
    tokenizer = train_tokenizer([text for text, _ in train], "word", 1_000, 1, 50)

    def split(pairs: list[tuple[str, str]]) -> TextSet:
        return encode([Row(text, label, "") for text, label in pairs], ["bad", "good"], tokenizer)

    texts = split(test)
    logits = fit_ngrams(split(train), texts, len(tokenizer), 2)(texts.padded(torch.arange(len(test))))
    return float((logits.argmax(1).numpy() == texts.labels).mean())


def test_it_learns_words_and_neighbors_but_no_farther_order() -> None:
    words = [
        (f"{a} {b} {c}", "good" if b == "fine" else "bad") for a in "pqrs" for b in ("fine", "dull") for c in "uvw"
    ]
    assert accuracy(words, words) == 1
    near = [(f"{a} x y {b} z", "good" if a == "on" else "bad") for a, b in (("on", "off"), ("off", "on"))]
    assert accuracy(near * 6, near) == 1  # "on x" tells
    far = [(f"x y {a} x y {b} x y", "good" if a == "on" else "bad") for a, b in (("on", "off"), ("off", "on"))]
    assert accuracy(far * 6, far) == 0.5


def test_a_text_without_a_known_word_is_classified_too() -> None:
    train = [("fine", "good"), ("dull", "bad")] * 4
    assert accuracy(train, [("zyzzyva", "good"), ("fine", "good")]) >= 0.5


def test_the_mixture_takes_what_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200,), generator=generator)
    noise = torch.randn(200, 2, generator=generator)
    right = torch.nn.functional.one_hot(labels, 2) + 0.5 * torch.randn(200, 2, generator=generator)
    assert fit_mixture(right, noise, labels)[0] < 0.3
    assert fit_mixture(noise, right, labels)[0] > 0.7
    assert fit_mixture(noise, right, labels, max_share=0.0)[0] == 0
