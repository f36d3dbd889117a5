"""From text to numbers and back to words: a word-level or byte-pair tokenizer, trained on the training texts only.

Words are split as in the Penn Treebank where it matters, so that "can't" and a treebank's "ca n't" are the same two
words. Byte pairs: Sennrich et al. 2016 (arXiv 1508.07909). Inference uses this file as well; it loads no torch.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PAD, UNKNOWN = 0, 1
SPECIALS = ["[PAD]", "[UNK]"]
# A word before n't, n't itself, 's and the like, words, dots in a row, and any other sign by itself.
WORDS = r"\w+(?=n['’]t\b)|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|\w+|\.{2,}|[^\w\s]"
REPLACED = (("<br ?/?>", " "), ("-lrb-", "("), ("-rrb-", ")"), ("’", "'"))


@dataclass(frozen=True)
class Vocabulary:
    """A trained tokenizer. Of a text of more than `max_length` tokens the beginning and the end are kept, half each."""

    tokenizer: Any
    max_length: int

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def to_json(self) -> str:
        """The tokenizer as the file that `tokenizers` reads."""
        return str(self.tokenizer.to_str())

    def digest(self) -> str:
        """A SHA-256 that two equal tokenizers share."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The tokens of texts; none is empty."""
        encodings = self.tokenizer.encode_batch_fast(list(texts))
        return [self.cut(np.asarray(encoding.ids or [UNKNOWN], dtype=np.int64)) for encoding in encodings]

    def cut(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The beginning and the end of what is too long."""
        if len(values) <= self.max_length:
            return values
        tail = self.max_length // 2
        return np.concatenate([values[: self.max_length - tail], values[len(values) - tail :]])

    def words(self, text: str) -> tuple[list[str], NDArray[np.int64]]:
        """The words of a text as they stand in it, and for each token (of `encode`) the number of its word."""
        encoding = self.tokenizer.encode(text)
        spans: dict[int, tuple[int, int]] = {}
        for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            first, last = spans.get(word, (start, end))
            spans[word] = (min(first, start), max(last, end))
        if not spans:
            return [text.strip()], np.zeros(1, dtype=np.int64)
        numbers = {word: number for number, word in enumerate(spans)}
        return (
            [text[start:end] for start, end in spans.values()],
            self.cut(np.asarray([numbers[word] for word in encoding.word_ids], dtype=np.int64)),
        )


def train_vocabulary(
    texts: Iterable[str], kind: Literal["word", "bpe"], size: int, min_count: int, max_length: int
) -> Vocabulary:
    """A tokenizer of at most `size` entries; a word (or pair) has to occur `min_count` times to have one."""
    tokenizers = load_library()
    settings = {"special_tokens": SPECIALS, "vocab_size": size, "min_frequency": min_count, "show_progress": False}
    steps = [splitter(tokenizers)]
    if kind == "word":
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
        trainer = tokenizers.trainers.WordLevelTrainer(**settings)
    else:
        # The mark of a word's beginning is a letter of its own: with a prefix for pieces inside of words, two trainings
        # on the same texts give differently numbered entries.
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=SPECIALS[UNKNOWN]))
        trainer = tokenizers.trainers.BpeTrainer(**settings)
        steps.append(tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always", split=False))
    tokenizer.normalizer = normalizer(tokenizers)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
    tokenizer.train_from_iterator(texts, trainer)
    return Vocabulary(tokenizer, max_length)


def read_vocabulary(content: str, max_length: int) -> Vocabulary:
    """The tokenizer that `to_json` wrote."""
    return Vocabulary(load_library().Tokenizer.from_str(content), max_length)


def split_words(text: str) -> list[str]:
    """The words of a text in small letters, as both tokenizers see them."""
    tokenizers = load_library()
    found = splitter(tokenizers).pre_tokenize_str(normalizer(tokenizers).normalize_str(text))
    return [word for word, _ in found]


def normalizer(tokenizers: Any) -> Any:
    """One form for equal characters, small letters, no line-break tags, treebank brackets as brackets."""
    normalizers = tokenizers.normalizers
    replaced = [normalizers.Replace(tokenizers.Regex(pattern), by) for pattern, by in REPLACED]
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), *replaced])


def splitter(tokenizers: Any) -> Any:
    """Splits text into words and signs; spaces are dropped."""
    return tokenizers.pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True)


def load_library() -> Any:
    """The `tokenizers` package, told to start no threads: they would not survive a fork."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    return tokenizers
