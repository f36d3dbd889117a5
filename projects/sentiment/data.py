"""The classifier's texts as tokens, served in batches of like length.

Batches of like length need little padding: where texts are phrases and sentences, a random batch is padding for three
quarters.
"""

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
from core.seeds import sample_generator
from projects.sentiment.config import PACKAGED_VECTORS, Config
from projects.sentiment.datasets import load_dataset
from projects.sentiment.tables import Fault, Row
from projects.sentiment.tokenizer import PAD, SPECIALS, UNKNOWN, Tokenizer, suitable_kind, train_tokenizer
from projects.sentiment.vectors import packaged_words

Batch = tuple[Tensor, Tensor]  # tokens int64 [N, T], zero at the padding; labels int64 [N]

_POOL_BATCHES = 50  # so many batches of random texts are sorted by length together
_MANY_UNKNOWN = 0.5  # share of unknown tokens from which on a tokenizer hardly tells texts apart


@dataclass(frozen=True)
class TextSet:
    """Texts of one split, and their tokens one after the other: text i has tokens[starts[i]:][:lengths[i]].

    labels: int64 [N], numbers of classes. where: the file and line of each text. tokens: int64 [sum of lengths].
    starts, lengths: int64 [N].
    """

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
    """The three splits, what the labels stand for, and the tokenizer.

    num_learned_words: entries of the tokenizer that are of the training texts; they come first. notes: what a user
    should know of the data, a line each. faults: rows that were left out. sha256: of all texts and labels before
    splitting.
    """

    classes: Sequence[str]
    tokenizer: Tokenizer
    num_learned_words: int
    train: TextSet
    val: TextSet
    test: TextSet | None
    notes: Sequence[str]
    faults: Sequence[Fault]
    sha256: str


def load_data(config: Config) -> Data:
    """The data that the settings name. Raises UserError, naming file, line and reason."""
    dataset = load_dataset(config)
    notes, texts = list(dataset.notes), [row.text for row in dataset.splits["train"]]
    kind = "word" if config.vectors else suitable_kind(texts) if config.tokenizer == "auto" else config.tokenizer
    settings = (texts, kind, config.vocab_size, config.min_count, config.max_length)
    tokenizer = train_tokenizer(*settings)
    num_learned_words = len(tokenizer)
    if config.vectors == PACKAGED_VECTORS:
        tokenizer = train_tokenizer(*settings, more_words=packaged_words())
    if num_learned_words <= len(SPECIALS):
        todo = "check --text-column, lower --min-count, or use --tokenizer bpe"
        raise UserError(f"no word occurs {config.min_count} times in the training texts", f"--data {config.data}", todo)
    sets = {name: encode(rows, dataset.classes, tokenizer) for name, rows in dataset.splits.items()}
    shares = {name: float((texts.tokens == UNKNOWN).double().mean()) for name, texts in sets.items()}
    unknown = ", ".join(f"{share:.1%} of {name}" for name, share in shares.items())
    notes.append(f"tokenizer ({kind}) of {len(tokenizer):,} entries; unknown to it are {unknown}")
    if max(shares.values()) > _MANY_UNKNOWN:
        notes.append("most words are unknown: check --text-column, lower --min-count, or use --tokenizer bpe")
    parts = (sets["train"], sets["val"], sets.get("test"))
    return Data(dataset.classes, tokenizer, num_learned_words, *parts, notes, dataset.faults, dataset.sha256)


def encode(rows: Sequence[Row], classes: Sequence[str], tokenizer: Tokenizer) -> TextSet:
    """Rows as tokens and numbers of classes."""
    number = {name: k for k, name in enumerate(classes)}
    labels = np.asarray([number[str(row.label)] for row in rows], dtype=np.int64)
    encoded = tokenizer.encode([row.text for row in rows])
    lengths = torch.tensor([len(each) for each in encoded])
    tokens = torch.from_numpy(np.concatenate(encoded))
    starts = lengths.cumsum(0) - lengths
    return TextSet([row.text for row in rows], labels, [row.where for row in rows], tokens, starts, lengths)


@dataclass(frozen=True, eq=False)
class LengthOrder(Order):
    """An order whose batches hold texts of like length; batches and their texts are shuffled anew for every epoch."""

    lengths: Tensor = field(default_factory=lambda: torch.zeros(0))

    def indices(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """This rank's texts of each batch from number `start` on."""
        if self.training:
            chosen = randomness.permutation(self.seed, epoch, self.num_samples)[: len(self) * self.batch_size]
            pools = [
                pool[self.lengths[pool].argsort(stable=True)]
                for pool in torch.split(chosen, _POOL_BATCHES * self.batch_size)
            ]
            batches = list(torch.split(torch.cat(pools), self.batch_size))
            turns = sample_generator(self.seed, epoch, 0, "batches").permutation(len(batches))
            batches = [batches[turn] for turn in turns]
        else:
            batches = list(torch.split(self.lengths.argsort(stable=True), self.batch_size))
        mine = (batch[self.world.rank :: self.world.size] for batch in batches[start:])
        yield from (batch for batch in mine if len(batch))


def training_loader(data: Data, config: Config, world: World) -> Loader[Batch]:
    """Shuffled batches of texts of like length."""
    texts = data.train
    order = LengthOrder(len(texts), config.batch_size, config.seed, world=world, lengths=texts.lengths)
    return batch_loader(texts, order)


def evaluation_loader(texts: TextSet, config: Config, world: World) -> Loader[Batch]:
    """All texts once, the short ones first; shared among the ranks of `world`."""
    order = LengthOrder(len(texts), 2 * config.batch_size, training=False, world=world, lengths=texts.lengths)
    return batch_loader(texts, order)


def evaluation_rows(texts: TextSet) -> Tensor:
    """The numbers of the texts, int64 [N], in the order in which `evaluation_loader` serves them to one process."""
    return texts.lengths.argsort(stable=True)


def batch_loader(texts: TextSet, order: LengthOrder) -> Loader[Batch]:
    """Padded tokens and labels on the CPU."""
    labels = torch.from_numpy(texts.labels)
    return BatchLoader(lambda rows, epoch: (texts.padded(rows), labels[rows]), order)
