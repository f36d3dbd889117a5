"""One verb does the whole optimizer step and equals the loop written by hand; batches, devices, precisions."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core.accelerator import Accelerator
from core.devices import choose_precision, cpu_has_bf16
from core.errors import UserError
from core.optim import Ema

Pair = namedtuple("Pair", ["first", "second"])
MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "sgd fused": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, fused=True),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01),
}


def network() -> nn.Module:
    """A small network, the same at each call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(num: int, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    """Inputs and labels."""
    generator = torch.Generator().manual_seed(1)
    draw = [
        (torch.randn(size, 6, generator=generator), torch.randint(3, (size,), generator=generator)) for _ in range(num)
    ]
    return [(x * 3, y) for x, y in draw]


def loss_of(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy."""
    return nn.functional.cross_entropy(module(batch[0]), batch[1])


def content(module: nn.Module) -> list[bytes]:
    """The weights, byte for byte."""
    return [bytes(p.detach().numpy().tobytes()) for p in module.parameters()]


def trained(make: Callable[[Any], Optimizer], clip_norm: float | None, *, by_hand: bool) -> nn.Module:
    """A network after a few steps of a warm-up schedule."""
    module = network()
    accelerator = Accelerator(device="cpu", precision="fp32", clip_norm=clip_norm)
    accelerator.prepare(module)
    optimizer = make(module.parameters())
    scheduler = LambdaLR(optimizer, lambda step: 0.5 + 0.1 * step)
    for batch in batches(6):
        loss = loss_of(module, batch)
        if by_hand:
            loss.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        else:
            accelerator.step(loss, optimizer, scheduler=scheduler)
    return module


@pytest.mark.parametrize("name", MAKERS)
def test_the_step_equals_the_hand_written_loop_bit_for_bit(name: str) -> None:
    verb, hand = (trained(MAKERS[name], None, by_hand=by_hand) for by_hand in (False, True))
    assert content(verb) == content(hand)
    assert content(verb) != content(network())


@pytest.mark.parametrize("name", MAKERS)
def test_clipping_equals_torch(name: str) -> None:
    verb, hand = (trained(MAKERS[name], 0.3, by_hand=by_hand) for by_hand in (False, True))
    torch.testing.assert_close(dict(verb.named_parameters()), dict(hand.named_parameters()), rtol=1e-5, atol=1e-6)
    assert content(verb) != content(trained(MAKERS[name], None, by_hand=True))


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_accumulated_micro_batches_equal_one_large_batch(clip_norm: float | None) -> None:
    whole, parts = network(), network()
    accelerator = Accelerator(device="cpu", precision="fp32", clip_norm=clip_norm)
    (inputs, labels), before = batches(1, size=32)[0], content(parts)
    optimizers = [SGD(module.parameters(), lr=1.0) for module in (whole, parts)]
    emas = [Ema(module, 0.5) for module in (whole, parts)]
    accelerator.step(loss_of(whole, (inputs, labels)), optimizers[0], ema=emas[0])
    for index in range(4):
        assert content(parts) == before
        assert emas[1].num_updates == 0
        part = slice(index * 8, index * 8 + 8)
        with accelerator.micro_batch(index, 4):
            accelerator.step(loss_of(parts, (inputs[part], labels[part])), optimizers[1], ema=emas[1])
    assert emas[1].num_updates == 1
    assert all(p.grad is None for p in parts.parameters())
    torch.testing.assert_close(dict(whole.named_parameters()), dict(parts.named_parameters()))


def test_after_a_window_that_an_error_ended_a_batch_is_a_window_of_its_own() -> None:
    whole, after = network(), network()
    accelerator = Accelerator(device="cpu", precision="fp32")
    with pytest.raises(KeyError), accelerator.micro_batch(0, 4):
        raise KeyError
    for module in (whole, after):
        step = Accelerator(device="cpu", precision="fp32").step if module is whole else accelerator.step
        step(loss_of(module, batches(1)[0]), SGD(module.parameters(), lr=1.0))
    assert content(whole) == content(after) != content(network())


def test_autocast_computes_in_the_chosen_precision() -> None:
    x, module = batches(1)[0][0], network()
    wanted: dict[Any, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for precision, dtype in wanted.items():
        with Accelerator(device="cpu", precision=precision).autocast():
            assert module(x).dtype == dtype


def test_fp16_clips_the_unscaled_gradient() -> None:
    module, accelerator = network(), Accelerator(device="cpu", precision="fp16", clip_norm=0.01)
    before = [p.detach().clone() for p in module.parameters()]
    accelerator.step(100 * loss_of(module, batches(1)[0]), SGD(module.parameters(), lr=1.0))
    moved = torch.stack([(p.detach() - b).norm() for p, b in zip(module.parameters(), before, strict=True)]).norm()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


def test_to_device_moves_tensors_wherever_they_are_and_nothing_else() -> None:
    accelerator, thing = Accelerator(device="cpu", precision="fp32"), object()
    accelerator.device = torch.device("meta")
    batch = {"a": [torch.ones(2), ("text", torch.ones(1))], 3: Pair(torch.ones(3), None), "c": (), "d": thing, "e": 1.5}
    moved: Any = accelerator.to_device(batch)
    assert moved["a"][0].device.type == moved["a"][1][1].device.type == moved[3].first.device.type == "meta"
    assert isinstance(moved[3], Pair)
    assert isinstance(moved["a"][1], tuple)
    assert (moved["a"][1][0], moved[3].second, moved["c"], moved["d"], moved["e"]) == ("text", None, (), thing, 1.5)
    assert list(moved) == list(batch)


def test_asking_for_a_gpu_that_is_not_there_is_a_user_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="--device cuda"):
        Accelerator(device="cuda")
    assert Accelerator(device="auto").device.type == "cpu"


def test_auto_precision_takes_bf16_only_where_it_is_native() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == ("bf16" if cpu_has_bf16() else "fp32")
    assert [choose_precision(name, cpu) for name in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_the_norm_of_a_gradient_is_that_before_clipping(clip_norm: float | None) -> None:
    module, accelerator = network(), Accelerator(device="cpu", precision="fp32", clip_norm=clip_norm)
    optimizer = SGD(module.parameters(), lr=0.1)
    (x, y), *_ = batches(1)
    gradients = torch.autograd.grad(nn.functional.cross_entropy(module(x), y), list(module.parameters()))
    expected = torch.cat([each.flatten() for each in gradients]).double().norm()
    accelerator.step(nn.functional.cross_entropy(module(x), y), optimizer)
    norms = accelerator.update.take_gradient_norms()
    assert norms == {id(optimizer): pytest.approx(float(expected), rel=1e-5)}
    assert accelerator.update.take_gradient_norms() == {}
