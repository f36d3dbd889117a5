"""Muon equals its formulas in float64, for matrices and filters, and goes on exactly where it was saved."""

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.muon import Muon, orthogonalized

Array = NDArray[np.float64]


def reference_direction(gradient: Array, match_adam: bool) -> Array:
    """Newton-Schulz as in Jordan's text, one matrix at a time."""
    matrix = gradient.reshape(len(gradient), -1)
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / np.linalg.norm(x)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    scale = 0.2 * max(matrix.shape) ** 0.5 if match_adam else max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    direction: Array = (x.T if tall else x) * scale
    return direction


def network() -> nn.Sequential:
    """Filters of equal and of other shapes, a wide and a tall matrix."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.Flatten(),
        nn.Linear(32, 5, bias=False),
        nn.Linear(5, 9, bias=False),
    )


def train(module: nn.Module, optimizer: Muon, steps: range) -> None:
    for step in steps:
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(images).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("fixed_norm", [False, True])
@pytest.mark.parametrize("match_adam", [False, True])
def test_updates_equal_a_float64_reference(match_adam: bool, fixed_norm: bool) -> None:
    module = network()
    modes = {"match_adam": match_adam, "fixed_norm": fixed_norm}
    optimizer = Muon(module.parameters(), lr=0.02, momentum=0.9, weight_decay=0.1, **modes)
    expected = [p.detach().double().numpy().copy() for p in module.parameters()]
    momenta = [np.zeros_like(each) for each in expected]
    for step in range(3):
        train(module, optimizer, range(step, step + 1))
        for at, parameter in enumerate(module.parameters()):
            assert parameter.grad is not None
            gradient = parameter.grad.double().numpy()
            momenta[at] = 0.9 * momenta[at] + gradient
            direction = reference_direction(gradient + 0.9 * momenta[at], match_adam).reshape(gradient.shape)
            if fixed_norm:
                expected[at] *= len(expected[at]) ** 0.5 / np.linalg.norm(expected[at])
            expected[at] = expected[at] * (1 - 0.02 * 0.1) - 0.02 * direction
    for parameter, values in zip(module.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 6, 6), (1, 3, 40), (3, 40, 3)])
def test_directions_have_singular_values_near_1(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 100
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_a_gradient_of_zero_moves_nothing_and_weights_without_one_are_left_out() -> None:
    module = network()
    before = [p.detach().clone() for p in module.parameters()]
    first = next(module.parameters())
    first.grad = torch.zeros_like(first)
    Muon(module.parameters(), lr=0.1).step()
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))


def test_a_resumed_training_goes_on_exactly() -> None:
    unbroken, broken = network(), network()
    train(unbroken, Muon(unbroken.parameters()), range(6))
    optimizer = Muon(broken.parameters())
    train(broken, optimizer, range(3))
    saved: tuple[dict[str, Tensor], dict[str, object]] = copy.deepcopy((broken.state_dict(), optimizer.state_dict()))
    resumed = network()
    optimizer = Muon(resumed.parameters())
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(resumed, optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True))


def test_biases_and_closures_are_refused() -> None:
    with pytest.raises(ValueError, match="matrices and filters"):
        Muon(nn.Linear(3, 2).parameters())
    with pytest.raises(ValueError, match="closure"):
        Muon(network().parameters()).step(lambda: 0.0)
