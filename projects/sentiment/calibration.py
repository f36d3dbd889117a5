"""Calibrated probabilities: one temperature fitted on held-out logits, and the calibration error.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
"""

import math

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_LOWEST, _HIGHEST = 0.1, 10.0
_NUM_BINS = 10


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


def reliability(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], num_bins: int = _NUM_BINS
) -> list[tuple[int, float, float]]:
    """For each bin of the winning probability that is not empty: number of texts, mean probability, share right."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    lowest = 1 / probabilities.shape[1]
    bins = np.minimum(((confidence - lowest) / (1 - lowest) * num_bins).astype(int), num_bins - 1)
    inside = [bins == number for number in range(num_bins)]
    return [(int(m.sum()), float(confidence[m].mean()), float(right[m].mean())) for m in inside if m.any()]


def calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The expected calibration error: mean difference of probability and share right, weighted by numbers of texts."""
    rows = reliability(probabilities, labels)
    return float(sum(num * abs(p - share) for num, p, share in rows) / max(1, len(labels)))
