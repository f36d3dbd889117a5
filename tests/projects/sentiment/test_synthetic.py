"""Generated reviews are a function of seed and number, balanced, and beyond a bag of words where an LSTM succeeds."""

from collections import Counter

import numpy as np
import pytest

from projects.sentiment.synthetic import write_reviews
from tests.forked import summary
from tests.smoke import Smoke


def test_half_of_the_reviews_have_each_label_and_none_comes_twice() -> None:
    texts, labels = write_reviews(1_000, seed=3)
    assert labels.sum() == 500
    assert len(set(texts)) > 990
    assert all(text == " ".join(text.split()) and text.endswith(".") for text in texts)


@pytest.mark.parametrize("num", [1, 2, 51])
def test_a_review_does_not_depend_on_how_many_are_written(num: int) -> None:
    texts, labels = write_reviews(num, seed=1)
    more, more_labels = write_reviews(60, seed=1)
    assert texts == more[:num]
    assert np.array_equal(labels, more_labels[:num])


def test_another_seed_gives_other_reviews() -> None:
    assert not set(write_reviews(50, seed=0)[0]) & set(write_reviews(50, seed=1)[0])


def test_a_number_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="num is 0"):
        write_reviews(0, seed=0)


def test_no_word_tells_much_of_the_label() -> None:
    texts, labels = write_reviews(6_000, seed=0)
    counts = [
        Counter(word for t, y in zip(texts, labels, strict=True) if y == k for word in set(t.split())) for k in (0, 1)
    ]
    for word in counts[0] | counts[1]:
        total = counts[0][word] + counts[1][word]
        assert abs(counts[0][word] - counts[1][word]) < 0.1 * total + 5 * total**0.5, word


def test_a_bag_of_words_is_near_chance_where_the_lstm_is_right(smoke: Smoke) -> None:
    numbers = summary(smoke.run_dir)
    assert numbers["ngrams_alone_test_accuracy"] < 0.65
    assert numbers["test_accuracy"] > 0.85
