"""The error of a loss or gradient that is NaN or infinite, with the first parameter that it stands in."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.errors import RunError


class NonFinite(RunError):
    """A loss or a gradient is NaN or infinite; no weight has been touched by it."""


def gate_error(num_updates: int) -> NonFinite:
    """The error of a gradient that a GPU has kept to itself for some updates."""
    where = f"the gradient became NaN or infinite {num_updates} updates before now"
    return NonFinite("training is not finite any more", where, "try a lower --lr, --clip-norm 1, or --precision fp32")


def overflow_error(num_steps: int, scale: float, rate: float) -> NonFinite:
    """The error of fp16 steps in a row of which none could be made."""
    where = f"loss scale {scale:g}, learning rate {rate:g}"
    return NonFinite(
        f"{num_steps} fp16 steps in a row overflowed", where, "try --precision bf16 or fp32, or a lower --lr"
    )


def nonfinite_error(loss: Tensor, optimizer: Optimizer, modules: Iterable[nn.Module]) -> NonFinite:
    """The error that names the loss, or the first bad parameter by its name in `modules`, and the learning rate."""
    loss = loss.detach()
    problem = f"loss is {float(loss):g}"
    if torch.isfinite(loss):
        names = {id(p): name for module in modules for name, p in module.named_parameters()}
        bad = (p for g in optimizer.param_groups for p in g["params"] if p.grad is not None)
        first = next((p for p in bad if not torch.isfinite(p.grad).all()), None)
        where = "the whole norm" if first is None else names.get(id(first), "an unnamed parameter")
        problem = f"gradient of {where} is not finite (loss {float(loss):g})"
    rate = optimizer.param_groups[0]["lr"]
    return NonFinite(problem, f"learning rate {rate:g}", "try a lower --lr, --clip-norm 1, or look at the data")
