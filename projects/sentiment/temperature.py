"""One temperature that calibrates probabilities, and the share of the n-grams in them, fitted on held-out logits.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LOWEST, _HIGHEST = 0.1, 10.0
_SHARES = 20  # of a mixture that are tried, from 0 to 1


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The divisor of the logits, between 0.1 and 10, that makes the cross-entropy smallest.

    logits: [N, C]; labels: int64 [N].
    """
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    for _ in range(60):  # the loss has one minimum, so a third of the interval can be left out each time
        third = (high - low) / 3
        if loss(low + third) <= loss(high - third):
            high -= third
        else:
            low += third
    return math.exp((low + high) / 2)


def fit_mixture(words: Tensor, ngrams: Tensor, labels: Tensor, max_share: float = 1.0) -> tuple[float, float]:
    """The share of the second logits in the weighted mean of both, and its temperature.

    Among the shares whose mean cross-entropy is within one standard error of the least it is the one nearest to the
    better part alone, because a few hundred texts tell no more (the rule of Breiman et al. 1984, "Classification and
    Regression Trees"). words, ngrams: [N, C]; labels: int64 [N]. max_share: 0 where there are no n-grams.
    """
    shares = [max_share * step / _SHARES for step in range(_SHARES + 1 if max_share else 1)]
    mixtures = [(1 - share) * words.double() + share * ngrams.double() for share in shares]
    temperatures = [fit_temperature(logits, labels) for logits in mixtures]
    losses = torch.stack(
        [
            F.cross_entropy(logits / t, labels, reduction="none")
            for logits, t in zip(mixtures, temperatures, strict=True)
        ]
    )
    means = losses.mean(1)
    best = int(means.argmin())
    errors = (losses - losses[best]).std(1, correction=0) / len(labels) ** 0.5
    near = (means <= means[best] + errors).nonzero().flatten().tolist()
    chosen = near[0] if means[0] <= means[-1] else near[-1]
    return shares[chosen], temperatures[chosen]
