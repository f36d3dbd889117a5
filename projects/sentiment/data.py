"""The classifier's texts as tokens, served in batches of like length.

Batches of like length need little padding: where texts are phrases and sentences, a random batch is padding for three
quarters. All tokens of a split lie in one tensor on the training device, from which a batch is cut there; how long it
is padded the host knows, so nothing waits for the device.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import randomness
from core.accelerator import Accelerator
from core.data import BatchLoader, Loader, Order
from core.devices import moved
from core.distributed import World
from core.errors import UserError
from core.seeds import sample_generator
from core.step_graphs import MAX_GRAPHS
from projects.sentiment.config import PACKAGED_VECTORS, Config
from projects.sentiment.datasets import load_dataset
from projects.sentiment.padding import few_lengths
from projects.sentiment.tables import Fault, Row
from projects.sentiment.tokenizer import PAD, SPECIALS, UNKNOWN, Tokenizer, suitable_kind, train_tokenizer
from projects.sentiment.vectors import packaged_words

Batch = tuple[Tensor, Tensor]  # tokens int64 [N, T], zero at the padding; labels int64 [N]

_POOL_BATCHES = 50  # so many batches of random texts are sorted by length together
_MANY_UNKNOWN = 0.5  # share of unknown tokens from which on a tokenizer hardly tells texts apart


@dataclass(frozen=True)
class TextSet:
    """Texts of one split, and their tokens one after the other: text i has tokens[starts[i]:][:lengths[i]].

    labels: int64 [N], numbers of classes. where: the file and line of each text. tokens: int64 [sum of lengths], on
    any device. starts, lengths: int64 [N], on the CPU.
    """

    texts: Sequence[str]
    labels: NDArray[np.int64]
    where: Sequence[str]
    tokens: Tensor
    starts: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        """The texts with their tokens on a device."""
        return replace(self, tokens=self.tokens.to(device))

    def padded(self, rows: Tensor) -> Tensor:
        """The tokens of some texts, int64 [len(rows), longest of them], on the device."""
        return self.batch(rows)[0]

    def batch(self, rows: Tensor, padded_to: Sequence[int] = ()) -> Batch:
        """The tokens and labels of some texts, on the device. rows: int64 [N], on the CPU.

        padded_to: rising lengths, of which the tokens get the first that holds all of these texts; none: their longest.
        """
        lengths, device = self.lengths[rows], self.tokens.device
        longest = int(lengths.max())
        width = padded_to[bisect_left(padded_to, longest)] if padded_to else longest
        on_host = torch.stack([self.starts[rows], lengths, torch.from_numpy(self.labels)[rows]])
        starts, lengths, labels = moved(on_host, device).unbind()
        places = torch.arange(width, device=device)
        inside = places < lengths[:, None]
        return torch.where(inside, self.tokens[torch.where(inside, starts[:, None] + places, 0)], PAD), labels


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

    def to(self, device: torch.device) -> Self:
        """The data with all tokens on a device."""
        test = None if self.test is None else self.test.to(device)
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=test)


def load_data(config: Config) -> Data:
    """The data that the settings name, on the CPU. Raises UserError, naming file, line and reason."""
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


def training_loader(data: Data, config: Config, accelerator: Accelerator) -> Loader[Batch]:
    """Shuffled batches of texts of like length, padded to the few lengths of the settings or of a GPU's graphs."""
    texts, most = data.train, config.batch_lengths
    order = LengthOrder(len(texts), config.batch_size, config.seed, world=accelerator.world, lengths=texts.lengths)
    if most is None:
        replays = accelerator.device.type == "cuda" and accelerator.world.size == 1
        most = MAX_GRAPHS // min(config.accumulate, 2) if replays else 0  # a window's last batch has another graph
    if most == 0:
        return batch_loader(texts, order)
    longest = [texts.lengths[rows].max() for rows in order.indices(0)]
    return batch_loader(texts, order, few_lengths(torch.stack([*longest, texts.lengths.max()]), most))


def evaluation_loader(texts: TextSet, config: Config, world: World) -> Loader[Batch]:
    """All texts once, the short ones first; shared among the ranks of `world`."""
    order = LengthOrder(len(texts), 2 * config.batch_size, training=False, world=world, lengths=texts.lengths)
    return batch_loader(texts, order)


def evaluation_rows(texts: TextSet) -> Tensor:
    """The numbers of the texts, int64 [N], in the order in which `evaluation_loader` serves them to one process."""
    return texts.lengths.argsort(stable=True)


def batch_loader(texts: TextSet, order: LengthOrder, padded_to: Sequence[int] = ()) -> Loader[Batch]:
    """Tokens and labels on the texts' device. padded_to: as TextSet.batch takes it."""
    return BatchLoader(lambda rows, epoch: texts.batch(rows, padded_to), order)
