"""Texts become tokens and back words; a tokenizer is a function of the training texts, and travels as JSON."""

import numpy as np
import pytest

from projects.sentiment.tokenizer import (
    PAD,
    UNKNOWN,
    Kind,
    Tokenizer,
    comparable_forms,
    read_tokenizer,
    split_words,
    suitable_kind,
    train_tokenizer,
)

TEXTS = ["a fine film", "a dull film !", "the film is n't dull", "unbelievably fine", "fine , fine"]


KINDS: tuple[Kind, ...] = ("word", "bpe")


def trained(kind: Kind, size: int = 60, min_count: int = 1, max_length: int = 20) -> Tokenizer:
    return train_tokenizer(TEXTS, kind, size, min_count, max_length)


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


@pytest.mark.parametrize("kind", KINDS)
def test_two_trainings_give_the_same_tokenizer_and_it_comes_back_from_json(kind: Kind) -> None:
    first, second = trained(kind), trained(kind)
    assert first.sha256() == second.sha256()
    again = read_tokenizer(first.to_json(), 20)
    assert len(again) == len(first) <= 60
    for text in (*TEXTS, "never seen ☃", ""):
        assert again.encode([text])[0].tolist() == first.encode([text])[0].tolist()


def test_words_of_other_texts_are_unknown_and_pieces_of_words_are_not() -> None:
    text = "an unfine film"
    assert UNKNOWN in trained("word").encode([text])[0]
    assert UNKNOWN not in trained("bpe").encode([text])[0]


def test_rare_words_have_no_entry() -> None:
    common = trained("word", min_count=2).trained.get_vocab()
    assert set(common) == {"[PAD]", "[UNK]", "a", "fine", "film", "dull"}


@pytest.mark.parametrize("text", ["", "  ", "<br />", "☃"])
def test_no_text_is_without_a_token(text: str) -> None:
    assert trained("word").encode([text])[0].tolist() == [UNKNOWN]


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    tokenizer, long = trained("word", max_length=5), "fine fine film dull dull dull a a"
    whole = trained("word", max_length=50).encode([long])[0]
    assert tokenizer.encode([long])[0].tolist() == [*whole[:3], *whole[-2:]]
    assert tokenizer.words(long)[1].tolist() == [0, 1, 2, 6, 7]


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_knows_the_word_that_it_came_from(kind: Kind) -> None:
    tokenizer, text = trained(kind), "A film, UNBELIEVABLY dull: ﬁne ☃"
    words, numbers = tokenizer.words(text)
    assert words == ["A", "film", ",", "UNBELIEVABLY", "dull", ":", "ﬁne", "☃"]
    assert len(numbers) == len(tokenizer.encode([text])[0])
    assert sorted(set(numbers.tolist())) == list(range(8))
    assert np.all(np.diff(numbers) >= 0)


def test_padding_has_the_number_zero() -> None:
    assert trained("word").trained.token_to_id("[PAD]") == PAD == 0


def test_texts_that_the_tokenizer_does_not_tell_apart_have_one_form() -> None:
    same = ["A ﬁne film, isn't it?", "a  fine\nFILM , is n't it ?", "a fine<br />film, isn’t it?"]
    assert len(set(comparable_forms(same))) == 1
    assert len(set(comparable_forms([*same, "a fine film, is it?"]))) == 2


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["a fine film", "今日は Sony"], "word"),
        (["это хороший фильм", "좋은 영화 입니다"], "word"),
        (["这部电影非常好看，推荐。", "a film"], "bpe"),
        (["ภาพยนตร์เรื่องนี้ดีมาก"], "bpe"),
        (["", "?!"], "word"),
    ],
)
def test_texts_without_spaces_between_words_get_pieces_of_words(texts: list[str], kind: Kind) -> None:
    assert suitable_kind(texts) == kind
