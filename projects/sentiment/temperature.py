"""One temperature that calibrates probabilities, fitted on held-out logits.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
"""

import math

import torch.nn.functional as F
from torch import Tensor

_LOWEST, _HIGHEST = 0.1, 10.0


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
