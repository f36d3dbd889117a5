"""Schedules start, peak and end where they say, resume exactly; averaged weights follow their formula."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core.optim import Combined, Ema, decay_groups, one_cycle, warmup_cosine

SCHEDULES: dict[str, Callable[[int], Callable[[int], float]]] = {
    "cosine": lambda total: warmup_cosine(total, total // 10),
    "one-cycle": one_cycle,
}


def test_warmup_cosine_rises_to_the_peak_and_falls_to_the_final_rate() -> None:
    factor = warmup_cosine(100, 10, final=0.05)
    values = [factor(step) for step in range(101)]
    assert values[0] == pytest.approx(1 / 11)
    assert values[10] == 1.0
    assert values[55] == pytest.approx((1 + 0.05) / 2)
    assert values[100] == pytest.approx(0.05)
    assert all(a < b for a, b in pairwise(values[:11]))
    assert all(a > b for a, b in pairwise(values[10:]))


def test_one_cycle_is_straight_up_and_straight_down() -> None:
    factor = one_cycle(100, rise=0.2, start=0.1, final=0.02)
    values = [factor(step) for step in range(101)]
    assert (values[0], values[20], values[100]) == pytest.approx((0.1, 1.0, 0.02))
    assert (values[10], values[60]) == pytest.approx((0.55, 0.51))
    assert all(a < b for a, b in pairwise(values[:21]))
    assert all(a > b for a, b in pairwise(values[20:]))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3, 7, 1000])
def test_a_schedule_of_any_length_stays_between_0_and_the_peak(name: str, total: int) -> None:
    factor = SCHEDULES[name](total)
    assert all(0 <= factor(step) <= 1 for step in range(2 * total + 2))
    assert all(factor(step) > 0 for step in range(total))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_schedule_goes_on_exactly(name: str) -> None:
    def start() -> tuple[SGD, LambdaLR]:
        optimizer = SGD(nn.Linear(1, 1).parameters(), lr=0.3)
        return optimizer, LambdaLR(optimizer, SCHEDULES[name](40))

    def go(optimizer: SGD, scheduler: LambdaLR, steps: int) -> list[float]:
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return rates

    whole = go(*start(), 40)
    optimizer, scheduler = start()
    first = go(optimizer, scheduler, 17)
    saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    optimizer, scheduler = start()
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert first + go(optimizer, scheduler, 23) == whole


def muon_and_adam(module: nn.Linear) -> Combined:
    """Muon for the matrix, AdamW for the bias."""
    return Combined(Muon([module.weight], lr=0.02, weight_decay=0.0), AdamW([module.bias], lr=0.01, weight_decay=0.0))


def train(module: nn.Linear, schedules: dict[LambdaLR, Optimizer], steps: range) -> None:
    """Steps of all optimizers towards zero on inputs that are a function of the step."""
    for step in steps:
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        module.zero_grad()
        module(inputs).square().mean().backward()
        for schedule, optimizer in schedules.items():
            optimizer.step()
            schedule.step()


def test_combined_optimizers_do_what_each_does_alone_under_one_schedule() -> None:
    torch.manual_seed(0)
    together = nn.Linear(4, 3)
    apart, shape = copy.deepcopy(together), warmup_cosine(20, 4)
    combined = muon_and_adam(together)
    train(together, {LambdaLR(combined, shape): combined}, range(20))
    alone = muon_and_adam(apart).optimizers
    train(apart, {LambdaLR(optimizer, shape): optimizer for optimizer in alone}, range(20))
    assert torch.equal(together.weight, apart.weight)
    assert torch.equal(together.bias, apart.bias)
    assert not combined.optimizers[0].state.keys() & combined.optimizers[1].state.keys()


def test_combined_optimizers_resume_exactly() -> None:
    torch.manual_seed(0)
    unbroken = nn.Linear(4, 3)
    broken, shape = copy.deepcopy(unbroken), warmup_cosine(20, 4)
    optimizer = muon_and_adam(unbroken)
    train(unbroken, {LambdaLR(optimizer, shape): optimizer}, range(20))
    optimizer = muon_and_adam(broken)
    schedule = LambdaLR(optimizer, shape)
    train(broken, {schedule: optimizer}, range(9))
    saved = copy.deepcopy((broken.state_dict(), optimizer.state_dict(), schedule.state_dict()))
    resumed = nn.Linear(4, 3)
    optimizer = muon_and_adam(resumed)
    schedule = LambdaLR(optimizer, shape)
    parts: tuple[Any, ...] = (resumed, optimizer, schedule)
    for each, state in zip(parts, saved, strict=True):
        each.load_state_dict(state)
    train(resumed, {schedule: optimizer}, range(9, 20))
    assert torch.equal(resumed.weight, unbroken.weight)
    assert torch.equal(resumed.bias, unbroken.bias)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)


def test_weight_decay_is_for_matrices_and_filters_only() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2), nn.Embedding(5, 2))
    module[0].weight.requires_grad_(False)
    decayed, plain = decay_groups(module, 0.01)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(module[2].weight), id(module[3].weight)}
    assert {id(p) for p in plain["params"]} == {id(p) for p in module.parameters() if p.ndim == 1}


def train_a_little(module: nn.Module, ema: Ema[nn.Module], steps: int) -> None:
    """Moves weights and running statistics about, by amounts that differ from step to step."""
    for _ in range(steps):
        module(torch.randn(8, 3))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update()


def small() -> nn.Module:
    """A network with weights, running statistics and a count."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_ema_equals_its_formula_and_follows_the_buffers() -> None:
    module = small()
    ema = Ema(module, 0.25)
    expected = {name: value.double() for name, value in module.state_dict().items()}
    for number in range(1, 8):
        train_a_little(module, ema, 1)
        decay = min(0.25, (1 + number) / (10 + number))
        for name, value in module.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    found = ema.module.state_dict()
    assert int(found["1.num_batches_tracked"]) == 7
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_ema_is_a_copy_that_is_neither_trained_nor_in_training_mode() -> None:
    module = small()
    ema = Ema(module, 0.9)
    assert not ema.module.training
    assert module.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert all(p.requires_grad for p in module.parameters())


def test_a_resumed_ema_goes_on_exactly() -> None:
    module, other = small(), small()
    ema, resumed = Ema(module, 0.9), Ema(other, 0.9)
    train_a_little(module, ema, 3)
    other.load_state_dict(module.state_dict())
    resumed.load_state_dict(copy.deepcopy(ema.state_dict()))
    for each, average in ((module, ema), (other, resumed)):
        torch.manual_seed(5)
        train_a_little(each, average, 3)
    assert resumed.num_updates == 6
    for name, value in ema.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name])


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_an_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        Ema(small(), decay)
