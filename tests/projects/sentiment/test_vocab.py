"""Texts become tokens and back words; a tokenizer is a function of the training texts, and travels as JSON."""

import numpy as np
import pytest

from projects.sentiment.vocab import PAD, UNKNOWN, Vocabulary, read_vocabulary, split_words, train_vocabulary

TEXTS = ["a fine film", "a dull film !", "the film is n't dull", "unbelievably fine", "fine , fine"]


def trained(kind: str, size: int = 60, min_count: int = 1, max_length: int = 20) -> Vocabulary:
    return train_vocabulary(TEXTS, kind, size, min_count, max_length)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I can't believe it's over...", ["i", "ca", "n't", "believe", "it", "'s", "over", "..."]),
        ("i ca n't believe it 's over ...", ["i", "ca", "n't", "believe", "it", "'s", "over", "..."]),
        ("Don’t!<br /><br />We'LL see", ["do", "n't", "!", "we", "'ll", "see"]),
        ("-lrb- a half-baked -rrb- café", ["(", "a", "half", "-", "baked", ")", "café"]),
        (" \t\n ", []),
    ],
)
def test_words_are_split_alike_in_raw_and_in_treebank_text(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_two_trainings_give_the_same_tokenizer_and_it_comes_back_from_json(kind: str) -> None:
    first, second = trained(kind), trained(kind)
    assert first.digest() == second.digest()
    again = read_vocabulary(first.to_json(), 20)
    assert len(again) == len(first) <= 60
    for text in (*TEXTS, "never seen ☃", ""):
        assert again.encode([text])[0].tolist() == first.encode([text])[0].tolist()


def test_words_of_other_texts_are_unknown_and_pieces_of_words_are_not() -> None:
    text = "an unfine film"
    assert UNKNOWN in trained("word").encode([text])[0]
    assert UNKNOWN not in trained("bpe").encode([text])[0]


def test_rare_words_have_no_entry() -> None:
    common = trained("word", min_count=2).tokenizer.get_vocab()
    assert set(common) == {"[PAD]", "[UNK]", "a", "fine", "film", "dull"}


@pytest.mark.parametrize("text", ["", "  ", "<br />", "☃"])
def test_no_text_is_without_a_token(text: str) -> None:
    assert trained("word").encode([text])[0].tolist() == [UNKNOWN]


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    vocabulary, long = trained("word", max_length=5), "fine fine film dull dull dull a a"
    whole = trained("word", max_length=50).encode([long])[0]
    assert vocabulary.encode([long])[0].tolist() == [*whole[:3], *whole[-2:]]
    assert vocabulary.words(long)[1].tolist() == [0, 1, 2, 6, 7]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_every_token_knows_the_word_that_it_came_from(kind: str) -> None:
    vocabulary, text = trained(kind), "A film, UNBELIEVABLY dull: ﬁne ☃"
    words, numbers = vocabulary.words(text)
    assert words == ["A", "film", ",", "UNBELIEVABLY", "dull", ":", "ﬁne", "☃"]
    assert len(numbers) == len(vocabulary.encode([text])[0])
    assert sorted(set(numbers.tolist())) == list(range(8))
    assert np.all(np.diff(numbers) >= 0)


def test_padding_has_the_number_zero() -> None:
    assert trained("word").tokenizer.token_to_id("[PAD]") == PAD == 0
