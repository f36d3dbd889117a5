"""The end of a step, from gradients to weights: unscale, check, clip, update.

The order follows the automatic mixed precision recipes
(https://docs.pytorch.org/docs/stable/notes/amp_examples.html). On a CPU each number is looked at before the optimizer
sees it. On a GPU a look waits for all work that was queued before it. There the first bad gradient closes a gate that
fused optimizers obey, check() reads it now and then, and the learning rate is a tensor, so that a step can be replayed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.host_work import HostWork
from core.nonfinite import gate_error, nonfinite_error, overflow_error

MAX_SKIPPED_IN_A_ROW = 20


class StepUpdate:
    """Updates weights, and never with a number that is not finite.

    uses_scaler: fp16, whose gradients need a loss scale. looks_at_once: whether a bad number is told at its step and
    not at the next check(). modules: whose parameters an error calls by name.
    """

    def __init__(
        self,
        device: torch.device,
        modules: Sequence[nn.Module],
        *,
        clip_norm: float | None,
        uses_scaler: bool,
        looks_at_once: bool,
    ) -> None:
        self.host = HostWork()
        # A disabled scaler costs 26 microseconds a step, so there is none where it is not needed.
        self.scaler = torch.amp.GradScaler(device.type) if uses_scaler else None
        self._device, self._modules, self._clip_norm = device, modules, clip_norm
        self._looks_at_once = looks_at_once
        self._rates: dict[int, list[Tensor]] = {}
        self._norms: dict[int, Tensor] = {}
        self._rate = 0.0  # for the message about overflows
        self._gate, self._closed_for = (torch.zeros((), device=device) for _ in range(2))
        self._skipped, self._skipped_in_a_row = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))

    def __call__(self, loss: Tensor, optimizer: Optimizer) -> bool:
        """One update from the gradients that the parameters have. loss: scalar, of this step; it has to be finite.

        Returns whether schedules go on: not where fp16 skipped the update, which a GPU keeps to itself.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.scaler is not None:
            return self._update_scaled(self.scaler, gradients, optimizer)
        if self.is_gated(optimizer):
            self._update_gated(loss, gradients, optimizer)
        else:
            self._update_looking(loss, gradients, optimizer)
        return True

    def is_gated(self, optimizer: Optimizer) -> bool:
        """Whether updates of this optimizer never wait for the device."""
        return not self._looks_at_once and bool(getattr(optimizer, "_step_supports_amp_scaling", False))

    @property
    def skipped(self) -> int:
        """Steps without an update so far, because fp16 gradients overflowed."""
        return int(self._skipped)

    def take_gradient_norms(self) -> dict[int, Tensor]:
        """The L2 norm of the whole gradient, before clipping, of each update since the last call, by id(optimizer).
        NaN for a step that was skipped."""
        norms, self._norms = self._norms, {}
        return norms

    def put_gradient_norms(self, norms: Mapping[int, Tensor]) -> None:
        """Sets what the next take_gradient_norms gives, for a replayed step."""
        self._norms = dict(norms)

    def check(self) -> None:
        """Raises NonFinite for a bad number that a GPU has kept to itself so far, or too many skipped steps in a row.
        Call it before saving."""
        if self.scaler is not None:
            if (in_a_row := int(self._skipped_in_a_row)) >= MAX_SKIPPED_IN_A_ROW:
                raise overflow_error(in_a_row, self.scaler.get_scale(), self._rate)
        elif not self._looks_at_once and float(self._gate):
            raise gate_error(int(self._closed_for))

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs: the loss scale and the counts of skipped steps."""
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return {"scaler": scaler, "skipped": self.skipped, "skipped_in_a_row": int(self._skipped_in_a_row)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what state_dict gave."""
        self._skipped.fill_(int(state["skipped"]))
        self._skipped_in_a_row.fill_(int(state["skipped_in_a_row"]))
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])

    def _update_looking(self, loss: Tensor, gradients: list[Tensor], optimizer: Optimizer) -> None:
        """Looks at the device once for all numbers: the norm of each gradient, and the loss, which may be infinite with
        a gradient of zero."""
        *norms, value = torch.stack([*torch._foreach_norm(gradients), loss.detach()]).tolist()
        norm = math.hypot(*norms)
        if not math.isfinite(norm + value):
            raise nonfinite_error(loss, optimizer, self._modules)
        self._norms[id(optimizer)] = torch.tensor(norm)
        if self._clip_norm is not None and norm > self._clip_norm:
            torch._foreach_mul_(gradients, self._clip_norm / (norm + 1e-6))
        optimizer.step()

    def _update_gated(self, loss: Tensor, gradients: list[Tensor], optimizer: Any) -> None:
        """A closed gate makes the optimizer skip this update and all that follow."""
        norm = self._clip(gradients) + loss.detach() * 0  # NaN for infinity too
        self._norms[id(optimizer)] = norm
        self._gate.logical_or_(~torch.isfinite(norm))
        self._closed_for += self._gate
        optimizer.found_inf = self._gate
        with self._rates_on_device(optimizer):
            optimizer.step()

    def _update_scaled(self, scaler: torch.amp.GradScaler, gradients: list[Tensor], optimizer: Optimizer) -> bool:
        """fp16: an overflow skips the update and halves the loss scale."""
        scaler.unscale_(optimizer)
        norm = self._clip(gradients)
        is_bad = ~torch.isfinite(norm)
        self._norms[id(optimizer)] = torch.where(is_bad, torch.nan, norm)
        self._skipped += is_bad
        self._skipped_in_a_row.add_(1).mul_(is_bad)
        self._rate = float(optimizer.param_groups[0]["lr"])
        is_gated = self.is_gated(optimizer)
        with self._rates_on_device(optimizer) if is_gated else nullcontext():
            scaler.step(optimizer)
        scaler.update()
        if self._looks_at_once:
            self.check()
        return is_gated or not bool(is_bad)

    def _clip(self, gradients: list[Tensor]) -> Tensor:
        """Scales gradients down to clip_norm, if there is one, without a look; returns the norm before."""
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if self._clip_norm is not None:
            torch._foreach_mul_(gradients, (self._clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @contextmanager
    def _rates_on_device(self, optimizer: Optimizer) -> Iterator[None]:
        """Within it the optimizer's learning rates are tensors on the device; the host sets them before the step."""
        if id(optimizer) not in self._rates:
            self._rates[id(optimizer)] = [torch.zeros((), device=self._device) for _ in optimizer.param_groups]
        rates = self._rates[id(optimizer)]

        def fill() -> None:
            for rate, group in zip(rates, optimizer.param_groups, strict=True):
                rate.fill_(group["lr"])

        self.host.before(fill, owner=optimizer)
        settings = [dict(group) for group in optimizer.param_groups]
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["lr"] = rate
            if self.host.is_noting and "capturable" in group:  # Adam's word for it; outside of a capture it would warn
                group["capturable"] = True
        try:
            yield
        finally:
            for before, group in zip(settings, optimizer.param_groups, strict=True):
                group.update({name: before[name] for name in ("lr", "capturable") if name in before})
