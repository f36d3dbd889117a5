"""A linear layer over the words, pairs and triples of neighbors that a text has: the network's second half.

Wang and Manning 2012, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification" (NB-SVM, here with the
logistic loss): each n-gram's weight is learned relative to how much more often it occurs under a label than under the
others. On a few thousand texts it is as good as a recurrent network or better, and is fitted in seconds.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.sentiment.data import TextSet
from projects.sentiment.temperature import fit_temperature
from projects.sentiment.tokenizer import PAD

_LONGEST = 3  # words of an n-gram
_MIN_TEXTS = 2  # an n-gram has to be in so many training texts
_MOST = 2**19  # n-grams that are kept, the most frequent ones
_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # inverse weights of the L2 penalty
_MAX_ITERATIONS, _HISTORY = 30, 10  # of L-BFGS
_TEXTS_AT_ONCE = 256


class Ngrams(nn.Module):
    """Logits from n-grams: tokens int64 [N, T], padded at the end → [N, num_classes].

    An n-gram's code is its tokens as the digits of one number. codes: int64 [num_codes], sorted, the first one 0,
    which stands for no n-gram and for unknown ones. weights: float32 [num_codes, num_classes], those of code 0 zero.
    """

    def __init__(self, num_words: int, num_codes: int, num_classes: int) -> None:
        super().__init__()
        self.num_words = num_words
        self.register_buffer("codes", torch.zeros(num_codes, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(num_codes, num_classes))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.codes: Tensor
        self.weights: Tensor
        self.bias: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        """Tokens [N, T] → logits [N, num_classes]; an n-gram counts once in a text."""
        codes, is_first = _sorted_codes(ids, self.num_words)
        weights = self.weights[self.find(codes)] * is_first[..., None]
        return weights.sum(1) + self.bias

    def attention(self, ids: Tensor) -> Tensor:
        """The share of each word in the sizes of the weights of its text's n-grams, float32 [N, T]: zero at padding,
        with sum 1."""
        is_word, length = ids != PAD, ids.shape[1]
        sizes = self.weights[self.find(_codes(ids, self.num_words))].abs().amax(2)
        total = 1e-6 * is_word.float()
        for num, of_ngrams in enumerate(sizes.unflatten(1, (_LONGEST, -1)).unbind(1), start=1):
            for place in range(num):
                total = total + F.pad(of_ngrams / num, (place, 0))[:, :length]
        return total / total.sum(1, keepdim=True).clamp(min=1e-9)

    def find(self, codes: Tensor) -> Tensor:
        """The places of codes in `self.codes`, 0 for unknown ones: a binary search, for which ONNX has no operator."""
        places, last = torch.zeros_like(codes), len(self.codes) - 1
        for step in (2**k for k in reversed(range(last.bit_length()))):
            ahead = (places + step).clamp(max=last)
            places = torch.where(self.codes[ahead] <= codes, ahead, places)
        return torch.where(self.codes[places] == codes, places, 0)


def _codes(ids: Tensor, num_words: int) -> Tensor:
    """The codes of the n-grams that begin at each token, for texts [N, T] int64 [N, 3T]; 0 where there is none.

    Three tokens of a vocabulary of a million fit in 64 bits.
    """
    length = ids.shape[1]
    padded = F.pad(ids, (0, _LONGEST - 1), value=PAD)
    code, codes = torch.zeros_like(ids), []
    for place in range(_LONGEST):
        token = padded[:, place : place + length]
        code = code + token * num_words ** (_LONGEST - 1 - place)
        codes.append(torch.where(token != PAD, code, 0))
    return torch.cat(codes, dim=1)


def _sorted_codes(ids: Tensor, num_words: int) -> tuple[Tensor, Tensor]:
    """The codes of texts [N, T], sorted, int64 [N, 3T], and which of them are the first of their kind, without 0."""
    codes = _codes(ids, num_words).sort(1).values
    return codes, codes != F.pad(codes[:, :-1], (1, 0))


class _Bags(NamedTuple):
    """Texts as bags of n-grams, one after the other: the n-grams' codes or places int64, where each text begins
    int64 [N], and labels int64 [N]."""

    ngrams: Tensor
    starts: Tensor
    labels: Tensor


def fit_ngrams(train: TextSet, val: TextSet, num_words: int, num_classes: int) -> Ngrams:
    """The layer with that penalty whose loss on the validation texts is least, calibrated on them; takes seconds."""
    bags = _to_bags(train, num_words)
    codes, counts = bags.ngrams.unique(return_counts=True)
    most_frequent = counts.argsort(descending=True, stable=True)[: _MOST - 1]
    codes = codes[most_frequent[counts[most_frequent] >= _MIN_TEXTS]].sort().values
    layer = Ngrams(num_words, 1 + len(codes), num_classes)
    layer.codes.copy_(F.pad(codes, (1, 0)))
    bags, held_out = (_known(layer, each) for each in (bags, _to_bags(val, num_words)))
    ratios = _log_ratios(bags, len(layer.codes), num_classes)
    table, best = torch.zeros(len(layer.codes) + 1, num_classes), float("inf")
    for strength in _STRENGTHS:  # the next one begins where the last one ended
        table = _fit_logistic(bags, ratios, table, strength)
        logits = _logits(table, ratios, held_out)
        temperature = fit_temperature(logits, held_out.labels)
        loss = float(F.cross_entropy(logits.double() / temperature, held_out.labels))
        if loss < best:
            best = loss
            layer.weights.copy_(table[:-1] * ratios / temperature)
            layer.bias.copy_(table[-1] / temperature)
    return layer


def _to_bags(texts: TextSet, num_words: int) -> _Bags:
    """Texts as bags of codes, the short texts first."""
    order = texts.lengths.argsort(stable=True)
    codes, sizes = [], []
    for rows in order.split(_TEXTS_AT_ONCE):
        found, is_first = _sorted_codes(texts.padded(rows), num_words)
        codes.append(found[is_first])
        sizes.append(is_first.sum(1))
    counts = torch.cat(sizes)
    return _Bags(torch.cat(codes), counts.cumsum(0) - counts, torch.from_numpy(texts.labels)[order])


def _known(layer: Ngrams, bags: _Bags) -> _Bags:
    """Bags of codes as bags of places in a layer, without the unknown ones."""
    places = layer.find(bags.ngrams)
    num_known_before = F.pad((places > 0).cumsum(0), (1, 0))
    return _Bags(places[places > 0], num_known_before[bags.starts], bags.labels)


def _log_ratios(bags: _Bags, num_codes: int, num_classes: int) -> Tensor:
    """For each n-gram and class how much more often texts of that class have it than others, as a logarithm."""
    sizes = torch.diff(bags.starts, append=torch.tensor([len(bags.ngrams)]))
    labels = bags.labels.repeat_interleave(sizes)
    counts = torch.zeros(num_codes * num_classes).index_add_(
        0, bags.ngrams * num_classes + labels, torch.ones(len(labels))
    )
    inside = 1 + counts.view(num_codes, num_classes)
    outside = 1 + inside.sum(1, keepdim=True) - inside - (num_classes - 1)
    return (inside / inside.sum(0)).log() - (outside / outside.sum(0)).log()


def _fit_logistic(bags: _Bags, ratios: Tensor, start: Tensor, strength: float) -> Tensor:
    """Relative weights [num_codes, C] and, in a last row, biases; the larger the strength, the weaker the penalty."""
    table = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [table], max_iter=_MAX_ITERATIONS, history_size=_HISTORY, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = table[:-1].square().sum() / (2 * strength * len(bags.labels))
        loss = F.cross_entropy(_logits(table, ratios, bags), bags.labels) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return table.detach()


def _logits(table: Tensor, ratios: Tensor, bags: _Bags) -> Tensor:
    """Logits [N, C] of bags of places."""
    return F.embedding_bag(bags.ngrams, table[:-1] * ratios, bags.starts, mode="sum") + table[-1]
