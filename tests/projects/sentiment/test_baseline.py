"""The bag of words learns words and pairs of neighbors, and no more."""

from projects.sentiment.baseline import measure_baseline
from projects.sentiment.data import Data, TextSet, encode
from projects.sentiment.tables import Row
from projects.sentiment.tokenizer import train_tokenizer


def as_data(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> Data:
    tokenizer = train_tokenizer([text for text, _ in train], "word", 1_000, 1, 50)

    def split(pairs: list[tuple[str, str]]) -> TextSet:
        return encode([Row(text, label, "") for text, label in pairs], ["bad", "good"], tokenizer)

    return Data(["bad", "good"], tokenizer, split(train), split(test), split(test), [], [], "")


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
    accuracies = measure_baseline(as_data(train, [("zyzzyva", "good"), ("fine", "good")]))
    assert accuracies["test"] >= 0.5
