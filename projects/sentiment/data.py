"""The classifier's texts: read, split, turned into tokens, and served in batches of like length.

Batches of like length need little padding: where texts are phrases and sentences, a random batch is padding for three
quarters.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import randomness
from core.data import BatchLoader, Loader, Order
from core.distributed import World
from core.errors import UserError
from projects.sentiment.config import Config
from projects.sentiment.reading import Fault, Row
from projects.sentiment.sources import check_labels, read_corpus
from projects.sentiment.splitting import hold_out
from projects.sentiment.vocab import PAD, Vocabulary, train_vocabulary

Batch = tuple[Tensor, Tensor]  # tokens int64 [N, T], zero at the padding; labels int64 [N]

POOL_BATCHES = 50  # so many batches of random texts are sorted by length together


@dataclass(frozen=True)
class Split:
    """Texts of one purpose, and their tokens one after the other: text i has tokens[starts[i]:][:lengths[i]]."""

    texts: Sequence[str]
    labels: NDArray[np.int64]
    where: Sequence[str]
    tokens: Tensor
    starts: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def padded(self, rows: Tensor) -> Tensor:
        """The tokens of some texts, int64 [len(rows), longest of them]."""
        lengths = self.lengths[rows, None]
        places = torch.arange(int(lengths.max()))
        inside = places < lengths
        return torch.where(inside, self.tokens[torch.where(inside, self.starts[rows, None] + places, 0)], PAD)


@dataclass(frozen=True)
class Data:
    """The three splits, what the labels stand for, the tokenizer, and what a reader of the log should know."""

    classes: Sequence[str]
    vocabulary: Vocabulary
    train: Split
    val: Split
    test: Split | None
    notes: Sequence[str]
    faults: Sequence[Fault]

    def digest(self) -> str:
        """A SHA-256 of all texts and labels."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            if split is not None:
                digest.update("\0".join(split.texts).encode() + split.labels.tobytes())
        return digest.hexdigest()


def load_data(config: Config) -> Data:
    """The data that the settings name. Raises UserError, naming file, line and reason."""
    corpus = read_corpus(config)
    classes = check_labels(corpus, config)
    for part, fraction in (("test", config.test_fraction), ("val", config.val_fraction)):
        if getattr(corpus, part) is None and (part == "val" or corpus.cut_test):
            kept, held = hold_out([row.text for row in corpus.train], fraction, config.seed, part)
            if not held:
                where = f"--data {config.data}: {len(corpus.train):,} for training"
                raise UserError("too few different texts to hold some out", where, "add texts")
            left_out = len(corpus.train) - len(kept) - len(held)
            if left_out:
                corpus.notes.append(f"{left_out:,} texts that are fragments of texts held out for {part} are left out")
            setattr(corpus, part, [corpus.train[i] for i in held])
            corpus.train = [corpus.train[i] for i in kept]
    texts = [row.text for row in corpus.train]
    vocabulary = train_vocabulary(texts, config.tokenizer, config.vocab_size, config.min_count, config.max_length)
    train, val = (encode(rows, classes, vocabulary) for rows in (corpus.train, corpus.val or []))
    test = None if corpus.test is None else encode(corpus.test, classes, vocabulary)
    return Data(classes, vocabulary, train, val, test, corpus.notes, corpus.faults)


def encode(rows: Sequence[Row], classes: Sequence[str], vocabulary: Vocabulary) -> Split:
    """Rows as a split."""
    number = {name: k for k, name in enumerate(classes)}
    labels = np.asarray([number[str(row.label)] for row in rows], dtype=np.int64)
    encoded = vocabulary.encode([row.text for row in rows])
    lengths = torch.tensor([len(each) for each in encoded])
    tokens = torch.from_numpy(np.concatenate(encoded))
    starts = lengths.cumsum(0) - lengths
    return Split([row.text for row in rows], labels, [row.where for row in rows], tokens, starts, lengths)


@dataclass(frozen=True, eq=False)
class LengthOrder(Order):
    """An order whose batches hold texts of like length; of them and of the texts in each, another one every epoch."""

    lengths: Tensor = field(default_factory=lambda: torch.zeros(0))

    def indices(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """This rank's texts of each batch from number `start` on."""
        if self.training:
            chosen = randomness.permutation(self.seed, epoch, self.num_samples)[: len(self) * self.batch_size]
            pools = [
                pool[self.lengths[pool].argsort(stable=True)]
                for pool in torch.split(chosen, POOL_BATCHES * self.batch_size)
            ]
            batches = list(torch.split(torch.cat(pools), self.batch_size))
            turns = randomness.sample_generator(self.seed, epoch, 0, "batches").permutation(len(batches))
            batches = [batches[turn] for turn in turns]
        else:
            batches = list(torch.split(self.lengths.argsort(stable=True), self.batch_size))
        mine = (batch[self.world.rank :: self.world.size] for batch in batches[start:])
        yield from (batch for batch in mine if len(batch))


def training_loader(data: Data, config: Config, world: World) -> Loader[Batch]:
    """Shuffled batches of texts of like length."""
    split = data.train
    order = LengthOrder(len(split), config.batch_size, config.seed, world=world, lengths=split.lengths)
    return batch_loader(split, order)


def evaluation_loader(split: Split, config: Config, world: World) -> Loader[Batch]:
    """All texts of a split once, the short ones first; shared among the ranks of `world`."""
    order = LengthOrder(len(split), 2 * config.batch_size, training=False, world=world, lengths=split.lengths)
    return batch_loader(split, order)


def evaluation_rows(split: Split) -> Tensor:
    """The texts in the order in which `evaluation_loader` serves them to a single process."""
    return split.lengths.argsort(stable=True)


def batch_loader(split: Split, order: LengthOrder) -> Loader[Batch]:
    """Padded tokens and labels, on the CPU, from where `fit` moves them."""
    labels = torch.from_numpy(split.labels)
    return BatchLoader(lambda rows, epoch: (split.padded(rows), labels[rows]), order)
