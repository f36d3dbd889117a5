"""The classifier's network: several that read a text word by word, averaged, mixed with one that counts its n-grams.

A member embeds the words, reads them with an encoder of encoders.py, pools its states over the words, and ends in one
linear layer. Attention over the states: Yang et al. 2016, "Hierarchical Attention Networks".
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.sentiment.config import Config
from projects.sentiment.encoders import ConvolutionEncoder, RecurrentEncoder, TransformerEncoder
from projects.sentiment.ngrams import Ngrams
from projects.sentiment.tokenizer import PAD, UNKNOWN

Pooling = Literal["max", "mean", "attention"]
_VERY_NEGATIVE = -1e4  # finite, in every precision: a row of padding alone must not become NaN


class Ensemble(nn.Module):
    """Classifiers that are trained independently on the same batches and averaged (Hansen and Salamon 1990, "Neural
    network ensembles"), mixed with a linear layer over n-grams.

    Tokens int64 [N, T], padded at the end → logits. vectors: of the words, float32 [num_words, numbers], which all
    members read beside what they learn, and which no training changes.
    """

    def __init__(
        self, members: Sequence["Classifier"], ngrams: Ngrams | None = None, vectors: Tensor | None = None
    ) -> None:
        super().__init__()
        self.members, self.ngrams = nn.ModuleList(members), ngrams
        self.register_buffer("vectors", vectors)
        self.vectors: Tensor | None
        # Fitted on validation texts after each epoch, and so in every checkpoint: what the logits are divided by, and
        # the n-grams' share in them.
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("share", torch.zeros(()))
        self.temperature: Tensor
        self.share: Tensor

    @classmethod
    def of(
        cls, config: Config, num_words: int, num_classes: int, ngrams: Ngrams | None, vectors: Tensor | None = None
    ) -> Self:
        """The network that a run's settings ask for. num_words: those whose embedding is learned."""
        more = 0 if vectors is None else vectors.shape[1]
        members = [_build_member(config, num_words, more, num_classes) for _ in range(config.members)]
        return cls(members, ngrams, vectors)

    def forward(self, ids: Tensor) -> Tensor:
        """Calibrated logits [N, C]; in training those of each member, [members, N, C], so that each has its own
        loss."""
        if self.training:
            return torch.stack([member(ids, self.vectors) for member in self.members])
        words, ngrams = self.parts(ids)
        return mixed(words, ngrams, self.share) / self.temperature

    def parts(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The mean logits of the members, and those of the n-grams, or zeros without them: [N, C] each."""
        words = torch.stack([member(ids, self.vectors) for member in self.members]).mean(0)
        return words, torch.zeros_like(words) if self.ngrams is None else self.ngrams(ids)

    def explain(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated logits [N, C], and the share of each word in them, float32 [N, T]: the members' attention, mixed
        with the size of the weights of its n-grams; zero at the padding, with sum 1."""
        members = [member for member in self.members if isinstance(member, Classifier)]
        logits, attentions = zip(*(member.explain(ids, self.vectors) for member in members), strict=True)
        words, attention = torch.stack(logits).mean(0), torch.stack(attentions).mean(0)
        if self.ngrams is None:
            return words / self.temperature, attention
        logits_of_both = mixed(words, self.ngrams(ids), self.share)
        return logits_of_both / self.temperature, mixed(attention, self.ngrams.attention(ids), self.share)


def mixed(words: Tensor, ngrams: Tensor, share: Tensor | float) -> Tensor:
    """The weighted mean of what the members say and what the n-grams say, whose share is given."""
    return (1 - share) * words + share * ngrams


def _build_member(config: Config, num_words: int, vector_size: int, num_classes: int) -> "Classifier":
    """One untrained member of the network that settings ask for."""
    sizes = (config.embedding_size + vector_size, config.hidden_size)
    encoder: RecurrentEncoder | TransformerEncoder | ConvolutionEncoder
    if config.model == "recurrent":
        encoder = RecurrentEncoder(config.cell, *sizes, config.layers, config.dropout)
    elif config.model == "transformer":
        encoder = TransformerEncoder(*sizes, config.layers, config.dropout)
    else:
        encoder = ConvolutionEncoder(*sizes)
    dropouts = {name: getattr(config, name) for name in ("word_dropout", "embedding_dropout", "dropout")}
    return Classifier(encoder, num_words, config.embedding_size, num_classes, pooling=config.pooling, **dropouts)


class Classifier(nn.Module):
    """One classifier: tokens int64 [N, T], padded at the end → logits [N, num_classes].

    encoder: reads the learned numbers of a word, and behind them its given vector where there are vectors.
    """

    def __init__(
        self,
        encoder: RecurrentEncoder | TransformerEncoder | ConvolutionEncoder,
        num_words: int,
        embedding_size: int,
        num_classes: int,
        *,
        pooling: Pooling,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooling, self.word_dropout, self.embedding_dropout = pooling, word_dropout, embedding_dropout
        self.dropout = dropout
        self.embedding = nn.Embedding(num_words, embedding_size, padding_idx=PAD)
        self.encoder: nn.Module = encoder
        size = encoder.size
        if pooling == "attention":
            self.attention = nn.Sequential(nn.Linear(size, size // 2), nn.Tanh(), nn.Linear(size // 2, 1))
        self.head = nn.Linear(size, num_classes)
        # With a smaller deviation training starts slowly, and the network overfits rare words sooner.
        nn.init.normal_(self.embedding.weight, std=0.5)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()

    def forward(self, ids: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Tokens int64 [N, T] → logits [N, C]."""
        states, mask = self.states(ids, vectors)
        logits: Tensor = self.head(F.dropout(self.pool(states, mask), self.dropout, self.training))
        return logits

    def states(self, ids: Tensor, vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens [N, T] → states of the encoder [T, N, S], and where there is a word, bool [T, N]."""
        if self.training and self.word_dropout:
            replaced = (torch.rand(ids.shape, device=ids.device) < self.word_dropout) & (ids != PAD)
            ids = ids.masked_fill(replaced, UNKNOWN)
        mask = (ids != PAD).T
        x = self.embedding(torch.where(ids < self.embedding.num_embeddings, ids, UNKNOWN).T)
        if vectors is not None:
            x = torch.cat([x, vectors[ids.T]], dim=2)
        x = F.dropout(x, self.embedding_dropout, self.training)
        return self.encoder(x, mask), mask

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [T, N, S] → [N, S], one for each text, of its words without the padding."""
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

    def explain(self, ids: Tensor, vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens [N, T] → logits [N, C], and attention float32 [N, T]: the share that each word's state has in the
        pooled one, which for the maximum is the share of units; zero at the padding, with sum 1."""
        states, mask = self.states(ids, vectors)
        logits: Tensor = self.head(self.pool(states, mask))
        if self.pooling == "max":
            largest = states.masked_fill(~mask[..., None], _VERY_NEGATIVE).argmax(0)
            steps = torch.arange(states.shape[0], device=states.device)[:, None, None]
            return logits, (steps == largest).float().mean(2).T
        return logits, self.pooling_weights(states, mask).T
