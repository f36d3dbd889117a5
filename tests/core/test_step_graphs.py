"""Replayed train steps equal ordinary ones bit for bit, under an emulation of what a CUDA graph can hold."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from core.accelerator import Accelerator
from core.config import RunConfig
from core.errors import RunError, UserError
from core.learner import Learner
from core.muon import Muon
from core.optim import Combined, warmup_cosine
from core.step_graphs import WARMUP_STEPS, Capture, StepGraphs, step_graphs
from tests.emulated_graph import capture

Batch = tuple[Tensor, Tensor]
OPTIMIZERS: dict[str, Callable[[nn.Sequential], Optimizer]] = {
    "sgd": lambda network: SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adamw": lambda network: AdamW(network.parameters(), lr=0.01, fused=True),
    "muon": lambda network: Combined(
        Muon([network[0].weight, network[4].weight], lr=0.02, weight_decay=0.1, fixed_norm=True),  # type: ignore[list-item]
        AdamW([p for p in network.parameters() if p.ndim == 1], lr=0.01, fused=True),
    ),
}
NUM_STEPS = 12


def make_learner(optimizer: str, precision: Any, device: Any = "cpu") -> Learner[nn.Sequential]:
    """A network with running statistics and random numbers, under a schedule and an average."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 3))
    accelerator = Accelerator(device=device, precision=precision, clip_norm=0.5, looks_at_once=False)
    return Learner(network, OPTIMIZERS[optimizer](network), warmup_cosine(NUM_STEPS, 3), accelerator, ema=0.9)


def make_step(learner: Learner[nn.Sequential]) -> Callable[[Batch], dict[str, Tensor]]:
    """A train step, the same work each time."""

    def train_step(batch: Batch) -> dict[str, Tensor]:
        with learner.accelerator.autocast():
            logits = learner.forward(batch[0])
        loss = nn.functional.cross_entropy(logits.float(), batch[1])
        learner.step(loss)
        return {"loss": loss.detach(), "accuracy": (logits.argmax(1) == batch[1]).mean(dtype=torch.float32)}

    return train_step


def make_batch(number: int, size: int = 8) -> Batch:
    """Inputs and labels."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(size, 6, generator=generator), torch.randint(3, (size,), generator=generator)


def trained(
    replays: bool,
    optimizer: str,
    precision: str,
    accumulate: int,
    device: str = "cpu",
    capture: Capture | None = capture,
) -> tuple[Any, ...]:
    """All that training changes, and what it tells, after some steps; the last batch is smaller. capture: None for a
    GPU's own."""
    learner = make_learner(optimizer, precision, device)
    accelerator, told = learner.accelerator, []
    accelerator.keeps_gradients = accumulate > 1
    graphs = StepGraphs(make_step(learner), accelerator, (lambda: "step") if replays else None, capture)
    with graphs:
        for step in range(NUM_STEPS):
            for index in range(accumulate):
                last = step == NUM_STEPS - 1 and index == accumulate - 1
                batch = accelerator.to_device(make_batch(step * accumulate + index, size=5 if last else 8))
                with accelerator.micro_batch(index, accumulate):
                    told.append(dict(graphs(batch)))
            told.append({str(n): norm for n, norm in enumerate(accelerator.update.take_gradient_norms().values())})
    accelerator.check()
    assert graphs.num_graphs == (replays and (1 if accumulate == 1 else 2))
    state = {name: part.state_dict() for name, part in learner.state().items()}
    return state, accelerator.state_dict(), told, torch.get_rng_state()


@pytest.mark.parametrize(
    ("optimizer", "precision", "accumulate"),
    [("sgd", "fp32", 1), ("adamw", "fp32", 3), ("muon", "fp32", 1), ("sgd", "fp16", 1), ("muon", "bf16", 2)],
)
def test_replayed_steps_equal_ordinary_ones(optimizer: str, precision: str, accumulate: int) -> None:
    ordinary, replayed = (trained(replays, optimizer, precision, accumulate) for replays in (False, True))
    torch.testing.assert_close(replayed, ordinary, rtol=0, atol=0, equal_nan=True)
    assert ordinary[0]["scheduler"]["last_epoch"] == ordinary[0]["ema"]["num_updates"] == NUM_STEPS


def test_a_bad_batch_in_a_replay_changes_no_weight_and_is_told_at_the_check() -> None:
    learner = make_learner("muon", "fp32")
    graphs = StepGraphs(make_step(learner), learner.accelerator, lambda: "step", capture)
    for number in range(WARMUP_STEPS + 2):
        graphs(make_batch(number))
    before = [p.detach().clone() for p in learner.network.parameters()]
    graphs((torch.full((8, 6), torch.nan), make_batch(0)[1]))
    graphs(make_batch(9))
    assert all(torch.equal(old, new) for old, new in zip(before, learner.network.parameters(), strict=True))
    with pytest.raises(RunError, match="2 updates"):
        learner.accelerator.check()


def test_a_step_that_looks_at_a_number_is_told_with_what_to_do() -> None:
    learner = make_learner("adamw", "fp32")
    step = make_step(learner)

    def looking(batch: Batch) -> dict[str, Tensor]:
        metrics = step(batch)
        return metrics | {"scaled": metrics["loss"] * float(metrics["accuracy"])}

    graphs = StepGraphs(looking, learner.accelerator, lambda: "step", capture)
    for number in range(WARMUP_STEPS):
        graphs(make_batch(number))
    with pytest.raises(RunError, match=r"cannot be captured.*--graph no"):
        graphs(make_batch(WARMUP_STEPS))


def test_another_key_or_shape_is_another_graph() -> None:
    learner, key = make_learner("sgd", "fp32"), ["first"]
    graphs = StepGraphs(make_step(learner), learner.accelerator, lambda: key[0], capture)
    for name, size, num in [("first", 8, 1), ("first", 8, 1), ("second", 8, 2), ("first", 6, 3)]:
        key[0] = name
        for number in range(WARMUP_STEPS + 1):
            graphs(make_batch(number, size))
        assert graphs.num_graphs == num


def test_graphs_that_are_asked_for_where_there_are_none_are_refused_and_auto_does_without() -> None:
    learner = make_learner("sgd", "fp32")
    arguments: Any = (make_step(learner), learner.accelerator, learner.state(), lambda: "step")
    with pytest.raises(RunError, match="--graph yes"):
        step_graphs(*arguments, mode="yes", accumulates=False, profiles=False)
    with pytest.raises(UserError, match="--graph yes"):
        Accelerator.of(RunConfig(device="cpu", graph="yes"))
    graphs, note = step_graphs(*arguments, mode="auto", accumulates=True, profiles=False)
    assert note is None
    assert not learner.accelerator.keeps_gradients
    for number in range(WARMUP_STEPS + 2):
        graphs(make_batch(number))
    assert graphs.num_graphs == 0
