"""Parts of the optimizer that several projects share: parameter groups, learning-rate shapes, averaged weights.

The shapes are closed forms of the step number, so a resumed schedule cannot drift. Warm-up and cosine follow
Loshchilov and Hutter 2017 (arXiv 1608.03983), one-cycle follows Smith 2018 (arXiv 1803.09820).
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.host_work import HostWork

N = TypeVar("N", bound=nn.Module)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and filters with weight decay, biases and norm scales without."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


class Combined(Optimizer):
    """Several optimizers, each with parameters of its own, which step, are scheduled and are saved as one.

    Muon takes matrices and filters only, so that the rest of a network needs another.
    """

    found_inf: Tensor | None = None
    grad_scale: Tensor | None = None

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers
        super().__init__(self._groups(), {})
        # Whether torch's loss scaler and the gate of a GPU may leave it to step() to skip an update.
        self._step_supports_amp_scaling = all(getattr(o, "_step_supports_amp_scaling", False) for o in optimizers)

    def _groups(self) -> list[dict[str, Any]]:
        """The groups of all, the very same objects, so a rate that a schedule sets here is theirs."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """A step of each. closure: not supported."""
        if closure is not None:
            raise ValueError("a closure; optimizers of Combined take none")
        for optimizer in self.optimizers:
            if self._step_supports_amp_scaling:
                each: Any = optimizer
                each.found_inf, each.grad_scale = self.found_inf, self.grad_scale
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Each one's state."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what state_dict gave."""
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = self._groups()


def warmup_cosine(total_steps: int, warmup_steps: int, final: float = 0.0) -> Callable[[int], float]:
    """Factor of the peak rate at a step: linear from 0 up to 1, then half a cosine down to `final`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def one_cycle(total_steps: int, rise: float = 0.2, start: float = 0.1, final: float = 0.0) -> Callable[[int], float]:
    """Factor of the peak rate at a step: straight from `start` up to 1 over the share `rise`, straight to `final`."""
    peak = max(1.0, rise * total_steps)

    def factor(step: int) -> float:
        if step < peak:
            return start + (1 - start) * step / peak
        return max(final, 1 + (final - 1) * (step - peak) / max(1.0, total_steps - peak))

    return factor


def step_decay(total_steps: int) -> Callable[[int], float]:
    """Factor of the peak rate at a step: 1, a tenth from half of the steps on, a hundredth from three quarters on."""
    return lambda step: 1.0 if 2 * step < total_steps else 0.1 if 4 * step < 3 * total_steps else 0.01


class Ema(Generic[N]):
    """Exponential moving average of a module's parameters and floating-point buffers, kept in a copy of it.

    decay: share of the old average that one step keeps, in [0, 1). It starts lower, min(decay, (1+n)/(10+n)) at
    update n, so that the first weights are soon forgotten.
    """

    def __init__(self, module: N, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; give a number of at least 0 and below 1")
        self.decay, self.num_updates = decay, 0
        self.module: N = copy.deepcopy(module).requires_grad_(False).eval()
        self._average, self._live = _floats(self.module), _floats(module)
        self._counts, self._live_counts = _integers(self.module), _integers(module)
        self._share: Tensor | None = None  # of the present weights in the next average, where a GPU reads it

    def update(self, host: HostWork | None = None) -> None:
        """Moves the average towards the module's present weights.

        host: of a step that a GPU may replay; what changes from step to step is then a tensor.
        """
        if host is None:
            torch._foreach_lerp_(self._average, self._live, self._next_share())
            self._count()
        else:
            if self._share is None or self._share.device != self._average[0].device:
                self._share = torch.zeros((), device=self._average[0].device)
            share = self._share
            host.before(lambda: share.fill_(self._next_share()), owner=self)
            moves = torch._foreach_sub(self._live, self._average)
            torch._foreach_mul_(moves, share)
            torch._foreach_add_(self._average, moves)
            host.after(self._count)
        if self._counts:
            torch._foreach_copy_(self._counts, self._live_counts)

    def _next_share(self) -> float:
        """How much of the present weights the next update takes."""
        return 1 - min(self.decay, (2 + self.num_updates) / (11 + self.num_updates))

    def _count(self) -> None:
        """Notes an update."""
        self.num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged module's state and the number of updates."""
        return {"num_updates": self.num_updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what state_dict gave."""
        self.num_updates = int(state["num_updates"])
        self.module.load_state_dict(state["module"])


def _floats(module: nn.Module) -> list[Tensor]:
    """The module's floating-point parameters and buffers."""
    return [t.detach() for t in _everything(module) if t.is_floating_point()]


def _integers(module: nn.Module) -> list[Tensor]:
    """The module's other buffers, such as counts of batches."""
    return [t.detach() for t in _everything(module) if not t.is_floating_point()]


def _everything(module: nn.Module) -> Iterable[Tensor]:
    """The module's parameters, then its buffers."""
    yield from module.parameters()
    yield from module.buffers()
