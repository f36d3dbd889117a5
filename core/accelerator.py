"""Device, precision and the optimizer step: the mixed-precision sequence as one verb, so that no order can be wrong.

The sequence follows the automatic mixed precision recipes (https://docs.pytorch.org/docs/stable/notes/amp_examples.html):
scale, backward, and at the end of an accumulation window unscale, clip, step, update, zero. Numbers are checked
before the optimizer sees them: a gradient that is not finite never reaches a weight.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.profiler import record_function

from core import distributed
from core.config import Device, Precision, RunConfig
from core.devices import choose_device, choose_precision, moved, set_up_backend
from core.nonfinite import gate_error, nonfinite_error, overflow_error
from core.optim import Ema

T = TypeVar("T")
_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_SKIPPED_IN_A_ROW = 20


class Accelerator:
    """One training's device, precision and step.

    device: "auto" takes CUDA where there is a GPU. precision: "auto" takes bf16 where the device computes it
    natively. clip_norm: largest L2 norm of one optimizer's whole gradient. Raises UserError for a device or
    precision that this machine does not have.
    """

    def __init__(
        self,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        clip_norm: float | None = None,
        compile: bool = False,
        deterministic: bool = False,
    ) -> None:
        self.world = distributed.world_from_environment()
        self.device = choose_device(device, self.world.local_rank)
        self.precision = choose_precision(precision, self.device)
        self.clip_norm = clip_norm
        self.skipped = 0  # steps without an update because fp16 gradients overflowed
        self.skipped_in_a_row = 0
        self.profiling = False
        self._compile = compile
        self._norms: dict[int, Tensor] = {}
        self._window_size, self._window_ends = 1, True
        self._parallel: list[DistributedDataParallel] = []
        self._modules: list[nn.Module] = []
        # A disabled scaler costs 26 microseconds a step, so there is none where it is not needed.
        self._scaler = torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None
        # On a GPU each look at a number waits for all work queued before it. The verdict is kept there instead: the
        # first bad gradient closes a gate that the fused optimizers obey, and check() reads it now and then.
        self._gate = torch.zeros((), device=self.device) if self.device.type == "cuda" else None
        self._gate_step = torch.zeros((), dtype=torch.int64, device=self.device) if self._gate is not None else None
        set_up_backend(self.device, deterministic=deterministic)
        distributed.start(self.world, self.device.type)

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """The accelerator that a run's settings ask for."""
        return cls(
            device=config.device,
            precision=config.precision,
            clip_norm=config.clip_norm,
            compile=config.compile,
            deterministic=config.deterministic,
        )

    def describe(self) -> str:
        """Device and precision in a few words, for the log."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        ranks = f", {self.world.size} ranks" if self.world.size > 1 else ""
        return f"{name}, {self.precision}, {torch.get_num_threads()} threads{ranks}"

    def prepare(self, module: nn.Module, *, channels_last: bool = False) -> nn.Module:
        """Moves a module to the device in place; returns what to call in the forward pass (compiled, parallel).

        The module itself is what belongs into the state and to the optimizer. channels_last: the memory format of
        image networks, which convolutions are fastest in.
        """
        module.to(self.device)
        if channels_last:
            module.to(memory_format=torch.channels_last)
        self._modules.append(module)
        forward: nn.Module = module
        if self.world.size > 1 and any(p.requires_grad for p in module.parameters()):
            ids = [self.device.index] if self.device.type == "cuda" else None
            parallel = DistributedDataParallel(module, device_ids=ids)
            self._parallel.append(parallel)
            forward = parallel
        if self._compile:
            forward.compile()
        return forward

    @property
    def dtype(self) -> torch.dtype:
        """What the forward pass computes in."""
        return _DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a project's forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def to_device(self, batch: T) -> T:
        """The batch with its tensors on the device, wherever they are in tuples, lists and mappings."""
        return batch if self.device.type == "cpu" else moved(batch, self.device)  # on a CPU every loader's already are

    @contextmanager
    def micro_batch(self, index: int, size: int) -> Iterator[None]:
        """Within it, step() handles batch number `index` of a window of `size` that makes one optimizer step.

        Outside of it each batch is a window of its own.
        """
        self._set_window(size, ends=index == size - 1)
        try:
            yield
        finally:
            self._set_window(1, ends=True)

    def step(
        self,
        loss: Tensor,
        optimizer: Optimizer,
        *,
        scheduler: LRScheduler | None = None,
        ema: Ema[Any] | None = None,
    ) -> None:
        """Backward, and at the end of the window the update: unscale, clip, step, schedule, average, zero.

        loss: scalar, a mean over the batch. Raises NonFinite before any weight changes (fp32 and bf16), or after
        20 skipped steps in a row (fp16).
        """
        with self._profiled("backward"):
            scaled = loss if self._window_size == 1 else loss / self._window_size
            (scaled if self._scaler is None else self._scaler.scale(scaled)).backward()
        if not self._window_ends:
            return
        with self._profiled("optimizer"):
            updated = self._update(loss, optimizer) if self._scaler is None else self._update_fp16(optimizer)
            if updated:
                if scheduler is not None:
                    scheduler.step()
                if ema is not None:
                    ema.update()
            for group in optimizer.param_groups:  # zero_grad() spends 15 microseconds on a span for the profiler
                for parameter in group["params"]:
                    parameter.grad = None

    def take_gradient_norms(self) -> dict[int, Tensor]:
        """The L2 norm of the whole gradient, before clipping, of each update since the last call, by id(optimizer)."""
        norms, self._norms = self._norms, {}
        return norms

    def check(self) -> None:
        """Raises NonFinite for a bad number that a GPU has kept to itself so far. Call it before saving."""
        if self._gate is not None and self._gate_step is not None and float(self._gate):
            raise gate_error(int(self._gate_step))

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs: the loss scale and the counts of skipped steps."""
        scaler = self._scaler.state_dict() if self._scaler is not None else None
        return {"scaler": scaler, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what state_dict gave."""
        self.skipped, self.skipped_in_a_row = int(state["skipped"]), int(state["skipped_in_a_row"])
        if self._scaler is not None and state["scaler"] is not None:
            self._scaler.load_state_dict(state["scaler"])

    def _set_window(self, size: int, *, ends: bool) -> None:
        """Sets what step() does with its loss: divide it by `size`, and update the weights where the window ends."""
        self._window_size, self._window_ends = size, ends
        for parallel in self._parallel:  # what DDP's no_sync() does: gradients are exchanged once a window
            parallel.require_backward_grad_sync = ends

    def _update(self, loss: Tensor, optimizer: Optimizer) -> bool:
        """Clips and steps in fp32 or bf16."""
        gradients = _gradients(optimizer)
        if self._gate is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            self._update_gated(loss, gradients, optimizer)
            return True
        # One look at the device for all numbers: the norm of each gradient, and the loss, which may be infinite
        # with a gradient of zero.
        *norms, value = torch.stack([*torch._foreach_norm(gradients), loss.detach()]).tolist()
        norm = math.hypot(*norms)
        if not math.isfinite(norm + value):
            raise nonfinite_error(loss, optimizer, self._modules)
        self._norms[id(optimizer)] = torch.tensor(norm)
        if self.clip_norm is not None and norm > self.clip_norm:
            torch._foreach_mul_(gradients, self.clip_norm / (norm + 1e-6))
        optimizer.step()
        return True

    def _update_gated(self, loss: Tensor, gradients: list[Tensor], optimizer: Any) -> None:
        """Clips and steps without waiting for the GPU; a closed gate makes the fused optimizer skip."""
        assert self._gate is not None
        assert self._gate_step is not None
        norm = self._clip(gradients) + loss.detach() * 0  # NaN for infinity too
        self._norms[id(optimizer)] = norm
        self._gate.logical_or_(~torch.isfinite(norm))
        self._gate_step += self._gate.to(torch.int64)
        optimizer.found_inf = self._gate
        optimizer.step()

    def _clip(self, gradients: list[Tensor]) -> Tensor:
        """Scales gradients down to clip_norm, if there is one, without waiting for the GPU; returns the norm before."""
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if self.clip_norm is not None:
            torch._foreach_mul_(gradients, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def _update_fp16(self, optimizer: Optimizer) -> bool:
        """Unscales, clips and steps in fp16; an overflow skips the update and halves the loss scale."""
        assert self._scaler is not None
        self._scaler.unscale_(optimizer)
        norm = self._clip(_gradients(optimizer))
        scale = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        skipped = self._scaler.get_scale() < scale
        self.skipped += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            rate = float(optimizer.param_groups[0]["lr"])
            raise overflow_error(MAX_SKIPPED_IN_A_ROW, self._scaler.get_scale(), rate)
        if not skipped:
            self._norms[id(optimizer)] = norm
        return not skipped

    def _profiled(self, name: str) -> AbstractContextManager[Any]:
        """A named span for the profiler; nothing at all while it is off."""
        return record_function(name) if self.profiling else nullcontext()


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    """The gradients that an optimizer is about to use."""
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
