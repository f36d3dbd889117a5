"""A number that is not finite never reaches a weight, and the message says where it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR

from core.accelerator import Accelerator
from core.nonfinite import NonFinite
from core.optim import Ema
from core.step_update import MAX_SKIPPED_IN_A_ROW


def network() -> nn.Module:
    """A small network, the same at each call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def loss_of(module: nn.Module, seed: int = 1) -> Tensor:
    """Mean cross-entropy of a batch."""
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)
    return nn.functional.cross_entropy(module(inputs), labels)


def content(module: nn.Module) -> list[bytes]:
    """The weights, byte for byte."""
    return [bytes(p.detach().numpy().tobytes()) for p in module.parameters()]


def test_fp16_skips_an_overflowing_update_counts_it_and_halves_the_scale() -> None:
    module, accelerator = network(), Accelerator(device="cpu", precision="fp16")
    optimizer, ema = SGD(module.parameters(), lr=0.1), Ema(module, 0.5)
    scheduler, before = LambdaLR(optimizer, lambda step: 1 / (1 + step)), content(module)
    accelerator.step(next(module.parameters()).sum() * float("inf"), optimizer, scheduler=scheduler, ema=ema)
    assert content(module) == before
    assert (accelerator.update.skipped, ema.num_updates, optimizer.param_groups[0]["lr"]) == (1, 0, 0.1)
    state = accelerator.state_dict()
    assert state["scaler"]["scale"] == 2**15
    accelerator.step(loss_of(module), optimizer, scheduler=scheduler, ema=ema)
    assert content(module) != before
    assert (accelerator.update.skipped, accelerator.state_dict()["skipped_in_a_row"], ema.num_updates) == (1, 0, 1)
    other = Accelerator(device="cpu", precision="fp16")
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_fp16_gives_up_after_twenty_overflows_in_a_row() -> None:
    module, accelerator = network(), Accelerator(device="cpu", precision="fp16")
    optimizer = SGD(module.parameters(), lr=0.25)
    for _ in range(MAX_SKIPPED_IN_A_ROW - 1):
        accelerator.step(next(module.parameters()).sum() * float("inf"), optimizer)
    with pytest.raises(NonFinite, match=r"20 fp16 steps.*learning rate 0\.25"):
        accelerator.step(next(module.parameters()).sum() * float("inf"), optimizer)
    assert content(module) == content(network())


def infinite_gradient(module: nn.Module) -> Tensor:
    """A finite loss: the root of 0 has an infinite slope."""
    bias = module.get_parameter("2.bias")
    return (bias - bias.detach()).sum().sqrt() + 1.5


def huge_gradient(module: nn.Module) -> Tensor:
    """A gradient whose numbers are finite, and whose norm is not."""
    bias = module.get_parameter("2.bias")
    return (bias - bias.detach()).sum() * 3e38 + 1


FAULTS: dict[str, tuple[Callable[[nn.Module], Tensor], str]] = {
    "nan loss": (lambda m: loss_of(m) * float("nan"), "loss is nan"),
    "infinite loss": (lambda m: loss_of(m) * 0 + float("inf"), "loss is inf"),
    "infinite gradient": (infinite_gradient, r"gradient of 2\.bias is not finite \(loss 1\.5\)"),
    "overflowing norm": (huge_gradient, "gradient of the whole norm"),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_number_stops_before_any_weight_changes(fault: str, precision: Any) -> None:
    module, accelerator = network(), Accelerator(device="cpu", precision=precision, clip_norm=1.0)
    accelerator.prepare(module)
    make_loss, message = FAULTS[fault]
    with pytest.raises(NonFinite, match=f"{message}.*learning rate 0.1; try"):
        accelerator.step(make_loss(module), SGD(module.parameters(), lr=0.1))
    assert content(module) == content(network())


def test_a_bad_number_early_in_a_window_is_found_at_its_end() -> None:
    module, accelerator = network(), Accelerator(device="cpu", precision="fp32")
    optimizer = AdamW(module.parameters())
    with accelerator.micro_batch(0, 2):
        accelerator.step(loss_of(module) * float("nan"), optimizer)
    with pytest.raises(NonFinite), accelerator.micro_batch(1, 2):
        accelerator.step(loss_of(module), optimizer)
    assert content(module) == content(network())


@pytest.mark.parametrize("optimizer_class", [SGD, AdamW])
def test_the_gate_of_a_gpu_keeps_weights_and_is_told_later(optimizer_class: Any) -> None:
    modules, found = [network(), network()], []
    for module, gated in zip(modules, (True, False), strict=True):
        accelerator = Accelerator(device="cpu", precision="fp32", clip_norm=100.0, looks_at_once=not gated)
        optimizer = optimizer_class(module.parameters(), lr=0.01, fused=True)
        for seed in range(3):
            accelerator.step(loss_of(module, seed), optimizer)
        accelerator.check()
        found.append((accelerator, optimizer))
    assert content(modules[0]) == content(modules[1])  # an open gate changes nothing
    accelerator, optimizer = found[0]
    accelerator.step(loss_of(modules[0]) * float("nan"), optimizer)
    accelerator.step(loss_of(modules[0]), optimizer)  # once closed it stays closed
    assert content(modules[0]) == content(modules[1])
    with pytest.raises(NonFinite, match="2 updates"):
        accelerator.check()
