"""The few lengths that training batches are padded to where a GPU replays their steps, of which it keeps one a length.

To cut sorted lengths into groups of least cost is a shortest path: the best way to end a group at a length goes on from
the best way to end the group before. Bellman 1957, "Dynamic Programming".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_COMPARED = 512  # different lengths; longer texts' are compared in coarser steps
_NEVER = 1 << 60  # larger than any number of words


def few_lengths(longest: Tensor, most: int) -> list[int]:
    """At most `most` lengths, in rising order: each batch is padded to the next of them, with the fewest words in all.

    longest: int64 [num_batches], words of each batch's longest text; the last length is no smaller than any of these.
    """
    step = 1 + int(longest.max()) // _MOST_COMPARED
    lengths, counts = (-(-longest // step) * step).unique(return_counts=True)
    num_shorter = F.pad(counts.cumsum(0), (1, 0))
    words = lengths * (num_shorter[1:] - num_shorter[:-1, None])  # [i, j]: of lengths i to j, all padded to j
    words = torch.where(torch.ones_like(words).triu().bool(), words, _NEVER)
    total, begins = words[0], []  # words of the batches up to each length, and where its group begins
    for _ in range(min(most, len(lengths)) - 1):
        total, begin = (F.pad(total[:-1], (1, 0))[:, None] + words).min(0)
        begins.append(begin)
    chosen, end = [], len(lengths) - 1
    for begin in [*reversed(begins), torch.zeros_like(lengths)]:
        if end >= 0:
            chosen.append(int(lengths[end]))
            end = int(begin[end]) - 1
    return chosen[::-1]
