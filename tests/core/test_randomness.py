"""Random numbers are a function of (seed, epoch, sample, purpose) and of nothing else; global states come back."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from core import checkpoint, randomness, seeds
from core.randomness import permutation, uniform_integers
from core.seeds import sample_generator

EVERYONE = torch.arange(1000)


def test_whole_numbers_lie_in_their_range_and_reach_its_ends() -> None:
    highs = (1, 2, 9, 32, 2**32)
    found = uniform_integers(0, 0, torch.arange(20_000), "augment", highs)
    assert found.dtype == torch.int64
    assert found.shape == (20_000, 5)
    assert int(found.min()) >= 0
    assert bool((found < torch.tensor(highs)).all())
    for column, high in enumerate(highs[:4]):
        assert found[:, column].unique().numel() == high
    assert int(found[:, 4].max()) > 0.999 * 2**32


@pytest.mark.parametrize("high", [2, 9, 32])
@pytest.mark.parametrize("epoch", [0, 1])
def test_whole_numbers_are_uniform_and_columns_independent(high: int, epoch: int) -> None:
    num = 36_000
    found = uniform_integers(3, epoch, torch.arange(num), "augment", (high, high))
    joint = torch.bincount(found[:, 0] * high + found[:, 1], minlength=high * high).double()
    expected = num / high**2
    degrees = high**2 - 1
    chi_square = float(((joint - expected) ** 2 / expected).sum())
    assert abs(chi_square - degrees) < 5 * (2 * degrees) ** 0.5


def test_neighbors_and_epochs_are_not_correlated() -> None:
    columns = [uniform_integers(0, epoch, torch.arange(20_000), "augment", (1024,))[:, 0].double() for epoch in (0, 1)]
    pairs = [(columns[0], columns[1]), (columns[0][1:], columns[0][:-1])]
    assert all(abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 0.03 for pair in pairs)


def test_a_sample_keeps_its_numbers_in_whatever_batch_it_is() -> None:
    whole = uniform_integers(1, 2, EVERYONE, "augment", (9, 9, 2))
    chosen = torch.tensor([999, 3, 3, 500])
    assert torch.equal(uniform_integers(1, 2, chosen, "augment", (9, 9, 2)), whole[chosen])


@pytest.mark.parametrize(("seed", "epoch", "purpose"), [(1, 0, "augment"), (0, 1, "augment"), (0, 0, "mixup")])
def test_seed_epoch_and_purpose_each_change_the_numbers(seed: int, epoch: int, purpose: str) -> None:
    same = uniform_integers(0, 0, EVERYONE, "augment", (1 << 20,)) == uniform_integers(
        seed, epoch, EVERYONE, purpose, (1 << 20,)
    )
    assert int(same.sum()) < 5
    first, second = sample_generator(0, 0, 7, "augment"), sample_generator(seed, epoch, 7, purpose)
    assert first.integers(1 << 62) != second.integers(1 << 62)


def test_the_numbers_are_the_same_on_every_machine() -> None:
    assert uniform_integers(0, 0, torch.arange(3), "augment", (100, 100)).tolist() == [[68, 97], [14, 80], [95, 1]]
    assert permutation(0, 0, 8).tolist() == [7, 1, 6, 4, 3, 5, 2, 0]


@pytest.mark.parametrize("num", [0, 1, 2, 7, 1000])
def test_numpy_draws_the_very_order_that_torch_draws(num: int) -> None:
    assert seeds.permutation(3, 4, num).tolist() == permutation(3, 4, num).tolist()


def test_an_order_is_a_permutation_that_differs_by_seed_and_epoch() -> None:
    orders = [permutation(seed, epoch, 200) for seed in (0, 1) for epoch in (0, 1)]
    assert all(torch.equal(order.sort().values, torch.arange(200)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(permutation(0, 1, 200), orders[1])


def test_orders_and_sample_numbers_leave_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    permutation(0, 0, 10)
    uniform_integers(0, 0, EVERYONE, "augment", (4,))
    assert torch.equal(torch.get_rng_state(), before)


def draw() -> list[float]:
    """A number from each global generator; an odd number of normal ones, so that a spare one is kept."""
    return [random.gauss(0, 1), random.random(), float(np.random.normal()), float(torch.randn(()))]


@pytest.mark.parametrize("num_before", [0, 1, 5])
def test_global_states_come_back_through_a_checkpoint(num_before: int, tmp_path: Path) -> None:
    randomness.seed_all(3, rank=0)
    for _ in range(num_before):
        draw()
    checkpoint.save(tmp_path, 1, {"random": randomness.get_states()}, project="any")
    expected = [draw() for _ in range(3)]
    randomness.set_states(checkpoint.load(tmp_path / "checkpoints" / "step-00000001")["random"])
    assert [draw() for _ in range(3)] == expected


def test_ranks_draw_different_numbers() -> None:
    drawn = []
    for rank in (0, 1, 0):
        randomness.seed_all(3, rank)
        drawn.append(draw())
    assert drawn[0] == drawn[2]
    assert all(a != b for a, b in zip(drawn[0], drawn[1], strict=True))
