"""The temperature undoes overconfidence, and the calibration error is what its bins say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from projects.sentiment.calibration import calibration_error, reliability
from projects.sentiment.temperature import fit_temperature


def overconfident(factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `factor` times as large as they ought to be, with labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4_000, 3, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_overconfidence(factor: float) -> None:
    logits, labels = overconfident(factor)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(factor, rel=0.1)
    for other in (0.9 * temperature, 1.1 * temperature):
        assert F.cross_entropy(logits / temperature, labels) < F.cross_entropy(logits / other, labels)
    assert calibration_error((logits / temperature).softmax(1).numpy(), labels.numpy()) < 0.03


@pytest.mark.parametrize(("sign", "expected"), [(1, 0.1), (-1, 10.0)])
def test_the_temperature_stays_in_its_bounds(sign: int, expected: float) -> None:
    logits = sign * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == pytest.approx(expected, rel=1e-3)


def test_calibration_error_is_the_mean_distance_of_the_bins() -> None:
    probabilities = np.array([[0.95, 0.05]] * 4 + [[0.3, 0.7]] * 2, dtype=np.float32)
    labels = np.array([0, 0, 0, 1, 1, 0])
    rows = reliability(probabilities, labels)
    assert [(num, round(p, 4), share) for num, p, share in rows] == [(2, 0.7, 0.5), (4, 0.95, 0.75)]
    assert calibration_error(probabilities, labels) == pytest.approx((2 * 0.2 + 4 * 0.2) / 6)
