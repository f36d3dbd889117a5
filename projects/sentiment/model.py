"""The classifier's network: embedding, recurrent layers in both directions, pooling over the words, one linear layer.

LSTM: Hochreiter and Schmidhuber 1997. GRU: Cho et al. 2014, arXiv 1406.1078. The plain RNN: Elman 1990. Dropout between
layers leaves out the same units at every word of a text (Gal and Ghahramani 2016, arXiv 1512.05287). Attention over the
states: Yang et al. 2016, "Hierarchical Attention Networks". The backward direction starts at each text's own last word,
so that padding cannot change a result; packed sequences do the same, and are ten times slower on a CPU.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.sentiment.config import Config
from projects.sentiment.tokenizer import PAD, UNKNOWN

Cell = Literal["lstm", "gru", "rnn"]
Pooling = Literal["max", "mean", "attention"]
_LAYERS: Mapping[Cell, type[nn.LSTM | nn.GRU | nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
_SETTINGS = (
    *("cell", "embedding_size", "hidden_size", "layers", "pooling"),
    *("word_dropout", "embedding_dropout", "dropout"),
)
_VERY_NEGATIVE = -1e4  # finite, in every precision: a row of padding alone must not become NaN


class Ensemble(nn.Module):
    """Several classifiers, trained independently on the same batches; the mean of their logits is the result
    (Hansen and Salamon 1990, "Neural network ensembles").

    Tokens int64 [N, T], padded at the end → logits.
    """

    def __init__(self, members: Sequence["RecurrentClassifier"]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        # Divides the logits of predictions; fitted on validation texts after each epoch, and so in every checkpoint.
        self.register_buffer("temperature", torch.ones(()))
        self.temperature: Tensor

    @classmethod
    def of(
        cls, config: Config, num_words: int, num_classes: int, kind: "type[RecurrentClassifier] | None" = None
    ) -> Self:
        """The network that a run's settings ask for. kind: the class of its members; None: RecurrentClassifier."""
        kind = kind or RecurrentClassifier
        settings = {name: getattr(config, name) for name in _SETTINGS}
        return cls([kind(num_words, num_classes, **settings) for _ in range(config.members)])

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [N, C]; in training those of each member, [members, N, C], so that each has its own loss."""
        logits = torch.stack([member(ids) for member in self.members])
        return logits if self.training else logits.mean(0)

    def explain(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, C], and the members' mean attention, float32 [N, T]: zero at the padding, with sum 1."""
        members = [member for member in self.members if isinstance(member, RecurrentClassifier)]
        logits, attentions = zip(*(member.explain(ids) for member in members), strict=True)
        return torch.stack(logits).mean(0), torch.stack(attentions).mean(0)


class RecurrentClassifier(nn.Module):
    """One classifier: tokens int64 [N, T], padded at the end → logits [N, num_classes]."""

    def __init__(
        self,
        num_words: int,
        num_classes: int,
        *,
        cell: Cell = "lstm",
        embedding_size: int,
        hidden_size: int,
        layers: int,
        pooling: Pooling,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooling, self.word_dropout, self.embedding_dropout = pooling, word_dropout, embedding_dropout
        self.dropout, self.cell = dropout, cell
        self.embedding = nn.Embedding(num_words, embedding_size, padding_idx=PAD)
        sizes = [embedding_size, *[2 * hidden_size] * (layers - 1)]
        self.forwards = nn.ModuleList(_LAYERS[cell](size, hidden_size) for size in sizes)
        self.backwards = nn.ModuleList(_LAYERS[cell](size, hidden_size) for size in sizes)
        self.attention = nn.Sequential(nn.Linear(2 * hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1))
        if pooling != "attention":
            del self.attention
        self.head = nn.Linear(2 * hidden_size, num_classes)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """Orthogonal recurrent matrices, and biases of 1 for an LSTM's forget gates, which keep its states at first.

        Embeddings have a standard deviation of 0.5: with a smaller one training starts slowly, and the network
        overfits rare words sooner."""
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.embedding.weight[PAD].zero_()
        for layer in (*self.forwards, *self.backwards):
            for name, parameter in layer.named_parameters():
                if name.startswith("weight_hh"):
                    for gate in parameter.split(parameter.shape[1]):  # square matrices, one below the other
                        nn.init.orthogonal_(gate)
                elif name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(parameter)
                else:
                    parameter.zero_()
                    if self.cell == "lstm" and name.startswith("bias_ih"):
                        parameter.chunk(4)[1].fill_(1.0)

    def forward(self, ids: Tensor) -> Tensor:
        """Tokens int64 [N, T] → logits [N, C]."""
        states, mask = self.states(ids)
        logits: Tensor = self.head(F.dropout(self.pool(states, mask), self.dropout, self.training))
        return logits

    def states(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [N, T] → states of the last layer [T, N, 2H], and where there is a word, bool [T, N]."""
        if self.training and self.word_dropout:
            replaced = (torch.rand(ids.shape, device=ids.device) < self.word_dropout) & (ids != PAD)
            ids = ids.masked_fill(replaced, UNKNOWN)
        mask = (ids != PAD).T
        x = F.dropout(self.embedding(ids.T), self.embedding_dropout, self.training)
        return self.recur(x, mask), mask

    def recur(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embedded words [T, N, E] → states [T, N, 2H]."""
        backwards = reversed_positions(mask)
        for number, (forward, backward) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if number:
                x = self.drop_units(x)
            ahead, _ = forward(x)
            behind, _ = backward(reorder(x, backwards))
            x = torch.cat([ahead, reorder(behind, backwards)], dim=2)
        return x

    def drop_units(self, x: Tensor) -> Tensor:
        """Leaves out some units of each text, the same ones at each of its words."""
        if not self.training or not self.dropout:
            return x
        return x * F.dropout(x.new_ones(1, *x.shape[1:]), self.dropout)

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [T, N, 2H] → [N, 2H], one for each text, of its words without the padding."""
        if self.pooling == "max":
            return states.masked_fill(~mask[..., None], _VERY_NEGATIVE).amax(0)
        weights = self.pooling_weights(states, mask).to(states.dtype)
        return (states * weights[..., None]).sum(0)

    def pooling_weights(self, states: Tensor, mask: Tensor) -> Tensor:
        """The weight of each state in the weighted mean that is the pooled one, float32 [T, N]; the sum over T is 1."""
        if self.pooling == "attention":
            scores: Tensor = self.attention(states)[..., 0].float()
            return scores.masked_fill(~mask, _VERY_NEGATIVE).softmax(0)
        return mask.float() / mask.sum(0).clamp(min=1)

    def explain(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [N, T] → logits [N, C], and attention float32 [N, T]: the share that each word's state has in the
        pooled one, which for the maximum is the share of units; zero at the padding, with sum 1."""
        states, mask = self.states(ids)
        logits: Tensor = self.head(self.pool(states, mask))
        if self.pooling == "max":
            largest = states.masked_fill(~mask[..., None], _VERY_NEGATIVE).argmax(0)
            steps = torch.arange(states.shape[0], device=states.device)[:, None, None]
            return logits, (steps == largest).float().mean(2).T
        return logits, self.pooling_weights(states, mask).T


def reversed_positions(mask: Tensor) -> Tensor:
    """For each position of each text the one that it has in the reversed text; the padding stays in place.

    mask: bool [T, N]. Returns int64 [T, N], its own inverse.
    """
    steps = torch.arange(mask.shape[0], device=mask.device)[:, None]
    return torch.where(mask, mask.sum(0) - 1 - steps, steps)


def reorder(x: Tensor, positions: Tensor) -> Tensor:
    """Rows of [T, N, H] in the order of `reversed_positions`."""
    rows = positions * x.shape[1] + torch.arange(x.shape[1], device=x.device)
    return x.flatten(0, 1).index_select(0, rows.flatten()).view_as(x)
