"""What reads a text's embedded words in their order: recurrent layers in both directions, a transformer, convolutions.

LSTM: Hochreiter and Schmidhuber 1997. GRU: Cho et al. 2014, arXiv 1406.1078. The plain RNN: Elman 1990. Transformer:
Vaswani et al. 2017, arXiv 1706.03762, normalized first as in Xiong et al. 2020, arXiv 2002.04745. Convolutions: Kim
2014, arXiv 1408.5882. Dropout between layers leaves out the same units at every word of a text (Gal and Ghahramani
2016, arXiv 1512.05287). Each takes embedded words [T, N, E], zero at the padding, and a mask bool [T, N] that is false
there, and gives a state for each word, [T, N, `size`]; padding changes no state of a word.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Cell = Literal["lstm", "gru", "rnn"]
_LAYERS: Mapping[Cell, type[nn.LSTM | nn.GRU | nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
_HEADS = 2
_WIDTHS = (3, 4, 5)  # words that a convolution sees
_VERY_NEGATIVE = -1e4  # finite, in every precision: a row of padding alone must not become NaN
_LONGEST_WAVE = 10_000.0


class RecurrentEncoder(nn.Module):
    """Recurrent layers in both directions.

    The backward direction starts at each text's own last word, so that padding cannot change a result; packed sequences
    do the same, and are ten times slower on a CPU.
    """

    def __init__(self, cell: Cell, embedding_size: int, hidden_size: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.cell, self.dropout, self.size = cell, dropout, 2 * hidden_size
        sizes = [embedding_size, *[2 * hidden_size] * (layers - 1)]
        self.forwards = nn.ModuleList(_LAYERS[cell](size, hidden_size) for size in sizes)
        self.backwards = nn.ModuleList(_LAYERS[cell](size, hidden_size) for size in sizes)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """Orthogonal recurrent matrices, and biases of 1 for an LSTM's forget gates, which keep its states at first."""
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

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
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


class TransformerEncoder(nn.Module):
    """Layers of self-attention over all words of a text, after sines and cosines of their positions are added."""

    def __init__(self, embedding_size: int, hidden_size: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.size = 2 * hidden_size
        self.enter = nn.Linear(embedding_size, self.size)
        self.layers = nn.ModuleList(_AttentionLayer(self.size, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(self.size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embedded words [T, N, E] → states [T, N, 2H]."""
        half = self.size // 2
        rates = _LONGEST_WAVE ** (-torch.arange(half, device=x.device) / half)
        angles = torch.arange(x.shape[0], device=x.device)[:, None] * rates
        x = self.enter(x) + torch.cat([angles.sin(), angles.cos()], 1)[:, None].to(x.dtype)
        bias = torch.where(mask, 0.0, _VERY_NEGATIVE).T[:, None, None]  # [N, 1, 1, T]
        x = x.transpose(0, 1)
        for layer in self.layers:
            x = layer(x, bias)
        states: Tensor = self.norm(x)
        return states.transpose(0, 1)


class _AttentionLayer(nn.Module):
    """Self-attention, then two linear layers at each word; both are added to what comes in."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.project, self.leave = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.feed = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * size, size))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[N, T, size] → [N, T, size]; bias is added to the scores of all pairs of words."""
        projected = self.project(self.norms[0](x)).unflatten(2, (3 * _HEADS, -1)).transpose(1, 2)
        queries, keys, values = projected.chunk(3, dim=1)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
        x = x + self.dropout(self.leave(attended.transpose(1, 2).flatten(2)))
        added: Tensor = x + self.dropout(self.feed(self.norms[1](x)))
        return added


class ConvolutionEncoder(nn.Module):
    """Convolutions over three, four and five words side by side, each with `hidden_size` filters."""

    def __init__(self, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.size = hidden_size * len(_WIDTHS)
        self.filters = nn.ModuleList(nn.Conv1d(embedding_size, hidden_size, width) for width in _WIDTHS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embedded words [T, N, E] → states [T, N, 3H]."""
        x = (x * mask[..., None]).permute(1, 2, 0)
        states = [filters(F.pad(x, ((w - 1) // 2, w // 2))) for w, filters in zip(_WIDTHS, self.filters, strict=True)]
        return F.relu(torch.cat(states, dim=1)).permute(2, 0, 1)
