"""From text to tokens and back to words: a word-level or byte-pair tokenizer, trained on the training texts only.

Words are split as in the Penn Treebank where it matters, so that "can't" and a treebank's "ca n't" are the same two
words. Byte pairs: Sennrich et al. 2016 (arXiv 1508.07909). Inference uses this file as well; it loads no torch.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PAD, UNKNOWN = 0, 1
SPECIALS = ["[PAD]", "[UNK]"]
# A word before n't, n't itself, 's and the like, words, dots in a row, and any other sign by itself.
_WORDS = r"\w+(?=n['’]t\b)|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|\w+|\.{2,}|[^\w\s]"
_REPLACED = (("<br ?/?>", " "), ("-lrb-", "("), ("-rrb-", ")"), ("’", "'"))
# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_MAX_UNSPACED_SHARE = 0.3  # of a text's letters; above it, words are no entries that two texts would share

Kind = Literal["word", "bpe"]


@dataclass(frozen=True)
class Tokenizer:
    """A trained tokenizer. Of a text of more than `max_length` tokens the beginning and the end are kept, half each.

    trained: the object of the `tokenizers` package.
    """

    trained: Any
    max_length: int

    def __len__(self) -> int:
        return int(self.trained.get_vocab_size())

    def to_json(self) -> str:
        """The tokenizer as the file that `tokenizers` reads."""
        return str(self.trained.to_str())

    def sha256(self) -> str:
        """The hex SHA-256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The tokens of each text, int64 [length], at least one and at most `max_length`."""
        encodings = self.trained.encode_batch_fast(list(texts))
        return [self._cut(np.asarray(encoding.ids or [UNKNOWN], dtype=np.int64)) for encoding in encodings]

    def words(self, text: str) -> tuple[list[str], NDArray[np.int64]]:
        """The words of a text as they stand in it, and for each token (of `encode`) the number of its word."""
        encoding = self.trained.encode(text)
        spans: dict[int, tuple[int, int]] = {}
        for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            first, last = spans.get(word, (start, end))
            spans[word] = (min(first, start), max(last, end))
        if not spans:
            return [text.strip()], np.zeros(1, dtype=np.int64)
        numbers = {word: number for number, word in enumerate(spans)}
        return (
            [text[start:end] for start, end in spans.values()],
            self._cut(np.asarray([numbers[word] for word in encoding.word_ids], dtype=np.int64)),
        )

    def _cut(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The beginning and the end of what is too long."""
        if len(values) <= self.max_length:
            return values
        tail = self.max_length // 2
        return np.concatenate([values[: self.max_length - tail], values[len(values) - tail :]])


def train_tokenizer(
    texts: Iterable[str], kind: Kind, size: int, min_count: int, max_length: int, more_words: Sequence[str] = ()
) -> Tokenizer:
    """A tokenizer of at most `size` entries; a word (or pair) has to occur `min_count` times to have one.

    more_words: entries that follow them in any case, of a tokenizer of whole words.
    """
    tokenizers = _library()
    settings = {"special_tokens": SPECIALS, "vocab_size": size, "min_frequency": min_count, "show_progress": False}
    steps = [_splitter(tokenizers)]
    if kind == "word":
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
        trainer = tokenizers.trainers.WordLevelTrainer(**settings)
    else:
        # The mark of a word's beginning is a letter of its own: with a prefix for pieces inside of words, two trainings
        # on the same texts give differently numbered entries.
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=SPECIALS[UNKNOWN]))
        trainer = tokenizers.trainers.BpeTrainer(**settings)
        steps.append(tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always", split=False))
    tokenizer.normalizer = _normalizer(tokenizers)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
    tokenizer.train_from_iterator(texts, trainer)
    if more_words:
        entries: dict[str, int] = tokenizer.get_vocab()
        for word in more_words:
            entries.setdefault(word, len(entries))
        tokenizer.model = tokenizers.models.WordLevel(entries, unk_token=SPECIALS[UNKNOWN])
    return Tokenizer(tokenizer, max_length)


def read_tokenizer(content: str, max_length: int) -> Tokenizer:
    """The tokenizer that `to_json` wrote."""
    return Tokenizer(_library().Tokenizer.from_str(content), max_length)


def split_words(text: str) -> list[str]:
    """The words of a text in small letters, as both tokenizers see them."""
    tokenizers = _library()
    pairs = _splitter(tokenizers).pre_tokenize_str(_normalizer(tokenizers).normalize_str(text))
    return [word for word, _ in pairs]


def comparable_forms(texts: Sequence[str]) -> list[str]:
    """The words of each text in small letters with one space around each: equal for texts that differ only in case,
    spacing or Unicode form, which a tokenizer does not tell apart."""
    normalizer, words = _normalizer(_library()), re.compile(_WORDS)
    return [f" {' '.join(words.findall(normalizer.normalize_str(text)))} " for text in texts]


def suitable_kind(texts: Sequence[str]) -> Kind:
    """Whole words, or pieces of words where the texts' script has no spaces between words."""
    num_letters = num_unspaced = 0
    for text in texts[:: max(1, len(texts) // 2_000)]:  # a sample is enough
        num_letters += sum(map(str.isalpha, text[:1_000]))
        num_unspaced += len(_UNSPACED.findall(text[:1_000]))
    return "bpe" if num_unspaced > _MAX_UNSPACED_SHARE * max(1, num_letters) else "word"


def _normalizer(tokenizers: Any) -> Any:
    """One form for equal characters, small letters, no line-break tags, treebank brackets as brackets."""
    normalizers = tokenizers.normalizers
    replaced = [normalizers.Replace(tokenizers.Regex(pattern), by) for pattern, by in _REPLACED]
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), *replaced])


def _splitter(tokenizers: Any) -> Any:
    """Splits text into words and signs; spaces are dropped."""
    return tokenizers.pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True)


def _library() -> Any:
    """The `tokenizers` package, set to start no threads: they would not survive a fork."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    return tokenizers
