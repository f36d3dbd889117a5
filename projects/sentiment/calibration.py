"""How well probabilities are calibrated: their reliability, and the calibration error. No torch.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
"""

import numpy as np
from numpy.typing import NDArray

_NUM_BINS = 10


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
