"""Evaluating leaves no trace in a module, and means are over samples, not over batches."""

import pytest
import torch
from torch import nn

from core.evaluation import Mean, evaluating


def test_modules_are_in_evaluation_mode_without_gradients_and_then_as_before() -> None:
    training, resting = nn.Dropout(), nn.Linear(2, 2).eval()
    with evaluating(training, resting):
        assert not training.training
        assert not resting(torch.ones(1, 2)).requires_grad
    assert training.training
    assert not resting.training
    assert resting(torch.ones(1, 2)).requires_grad


def test_an_error_within_still_restores_the_mode() -> None:
    module = nn.Dropout()
    with pytest.raises(ZeroDivisionError), evaluating(module):
        raise ZeroDivisionError
    assert module.training
    assert torch.is_grad_enabled()


def test_a_part_that_was_kept_in_evaluation_mode_is_not_woken_up() -> None:
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    module[0].eval()  # a frozen norm inside a network that trains
    with evaluating(module):
        pass
    assert module.training
    assert not module[0].training
    assert module[1].training


def test_uneven_batches_weigh_by_their_samples() -> None:
    values, means = torch.arange(10.0), Mean()
    for part in (values[:7], values[7:9], values[9:]):
        means.add({"value": part.sum(), "square": (part**2).sum()}, len(part))
    assert means.result() == {"square": 28.5, "value": 4.5}


def test_sums_do_not_lose_small_terms() -> None:
    means = Mean()
    for _ in range(1000):
        means.add({"loss": torch.tensor(2.0**24)}, 1)
        means.add({"loss": torch.tensor(1.0)}, 1)
    assert means.result()["loss"] == (2**24 + 1) / 2


def test_a_mean_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no batch"):
        Mean().result()
