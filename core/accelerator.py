"""Device, precision and the optimizer step: the mixed-precision sequence as one verb, so that no order can be wrong.

Scale, backward, and at the end of an accumulation window unscale, clip, step, update, zero. A gradient that is not
finite never reaches a weight (core/step_update.py).
"""

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
from core.errors import UserError
from core.optim import Ema
from core.step_update import StepUpdate

T = TypeVar("T")
_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Accelerator:
    """One training's device, precision and step.

    device: "auto" takes CUDA where there is a GPU. precision: "auto" takes bf16 where the device computes it
    natively. clip_norm: largest L2 norm of one optimizer's whole gradient. looks_at_once: whether a number that is not
    finite is told at its step and not at the next check(); None: on a CPU, where it costs nothing. Raises UserError for
    a device or precision that this machine does not have.
    """

    def __init__(
        self,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        clip_norm: float | None = None,
        compile: bool = False,
        deterministic: bool = False,
        looks_at_once: bool | None = None,
    ) -> None:
        self.world = distributed.world_from_environment()
        self.device = choose_device(device, self.world.local_rank)
        self.precision = choose_precision(precision, self.device)
        self.profiling = False
        self.keeps_gradients = False  # zeroed between windows at a fixed place, for steps that are replayed
        self._compile = compile
        self._window_size, self._window_ends = 1, True
        self._parallel: list[DistributedDataParallel] = []
        self._modules: list[nn.Module] = []
        set_up_backend(self.device, deterministic=deterministic)
        self.update = StepUpdate(
            self.device,
            self._modules,
            clip_norm=clip_norm,
            uses_scaler=self.precision == "fp16",
            looks_at_once=self.device.type == "cpu" if looks_at_once is None else looks_at_once,
        )
        distributed.start(self.world, self.device.type)

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """The accelerator that a run's settings ask for. Raises UserError for graphs without a GPU as well."""
        accelerator = cls(
            device=config.device,
            precision=config.precision,
            clip_norm=config.clip_norm,
            compile=config.compile,
            deterministic=config.deterministic,
        )
        if config.graph == "yes" and accelerator.device.type != "cuda":
            raise UserError("only a GPU has CUDA graphs", "--graph yes", "give --graph auto, or --device cuda")
        return accelerator

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
        20 skipped steps in a row (fp16); a GPU tells it at the next check().
        """
        scaler, host = self.update.scaler, self.update.host
        with self._profiled("backward"):
            scaled = loss if self._window_size == 1 else loss / self._window_size
            (scaled if scaler is None else scaler.scale(scaled)).backward()
        if not self._window_ends:
            return
        with self._profiled("optimizer"):
            goes_on = self.update(loss, optimizer)
            if goes_on and scheduler is not None:
                host.after(scheduler.step)
            if goes_on and ema is not None:
                ema.update(host if self.update.is_gated(optimizer) else None)
            for group in optimizer.param_groups:  # zero_grad() spends 15 microseconds on a span for the profiler
                for parameter in group["params"]:
                    if not self.keeps_gradients:
                        parameter.grad = None
                    elif parameter.grad is not None:
                        parameter.grad.zero_()

    def check(self) -> None:
        """Raises NonFinite for a bad number that a GPU has kept to itself so far. Call it before saving."""
        self.update.check()

    @property
    def window(self) -> tuple[int, bool]:
        """What step() does with its loss: the size of the window, and whether this batch ends it."""
        return self._window_size, self._window_ends

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return self.update.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what state_dict gave."""
        self.update.load_state_dict(state)

    def _set_window(self, size: int, *, ends: bool) -> None:
        """Sets what step() does with its loss: divide it by `size`, and update the weights where the window ends."""
        self._window_size, self._window_ends = size, ends
        for parallel in self._parallel:  # what DDP's no_sync() does: gradients are exchanged once a window
            parallel.require_backward_grad_sync = ends

    def _profiled(self, name: str) -> AbstractContextManager[Any]:
        """A named span for the profiler; nothing at all while it is off."""
        return record_function(name) if self.profiling else nullcontext()
