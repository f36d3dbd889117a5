"""Device, precision and the optimizer step: the mixed-precision sequence as one verb, so that no order can be wrong.

The sequence follows the automatic mixed precision recipes (https://docs.pytorch.org/docs/stable/notes/amp_examples.html):
scale, backward, and at the end of an accumulation window unscale, clip, step, update, zero. Numbers are checked
before the optimizer sees them: a gradient that is not finite never reaches a weight.
"""

import ctypes
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.profiler import record_function

from core import distributed
from core.config import Device, Precision, RunConfig
from core.errors import RunError, UserError
from core.optim import Ema

T = TypeVar("T")
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_SKIPPED_IN_A_ROW = 20


class NonFinite(RunError):
    """A loss or a gradient is NaN or infinite; no weight has been touched by it."""


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
        self._window_size, self._window_ends = 1, True
        self._parallel: list[DistributedDataParallel] = []
        self._modules: list[nn.Module] = []
        # A disabled scaler costs 26 microseconds a step, so there is none where it is not needed.
        self._scaler = torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None
        # On a GPU each look at a number waits for all work queued before it. The verdict is kept there instead: the
        # first bad gradient closes a gate that the fused optimizers obey, and check() reads it now and then.
        self._gate = torch.zeros((), device=self.device) if self.device.type == "cuda" else None
        self._gate_step = torch.zeros((), dtype=torch.int64, device=self.device) if self._gate is not None else None
        if self.device.type == "cpu":
            keep_freed_memory()
        else:
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = not deterministic
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
            torch.use_deterministic_algorithms(True)
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
        return DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a project's forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def to_device(self, batch: T) -> T:
        """The batch with its tensors on the device, wherever they are in tuples, lists and mappings."""
        if self.device.type == "cpu":  # where every loader puts its tensors
            return batch
        moved: Any = batch
        if isinstance(batch, Tensor):
            moved = batch.to(self.device, non_blocking=True)
        elif isinstance(batch, Mapping):
            moved = {key: self.to_device(value) for key, value in batch.items()}
        elif isinstance(batch, tuple) and hasattr(batch, "_fields"):
            moved = type(batch)(*(self.to_device(value) for value in batch))
        elif isinstance(batch, tuple | list):
            moved = type(batch)(self.to_device(value) for value in batch)
        return cast(T, moved)

    def micro_batch(self, index: int, size: int) -> None:
        """Says that the next train step is number `index` of a window of `size` that makes one optimizer step."""
        self._window_size, self._window_ends = size, index == size - 1
        for parallel in self._parallel:  # what DDP's no_sync() does: gradients travel once a window
            parallel.require_backward_grad_sync = self._window_ends

    def step(
        self,
        loss: Tensor,
        optimizer: Optimizer,
        *,
        scheduler: LRScheduler | None = None,
        ema: Ema | None = None,
    ) -> None:
        """Backward, and at the end of the window the update: unscale, clip, step, schedule, average, zero.

        loss: scalar, a mean over the batch. Raises NonFinite before any weight changes (fp32 and bf16), or after
        20 skipped steps in a row (fp16).
        """
        with self._profiled("backward"):
            scaled = loss if self._window_size == 1 else loss / self._window_size
            (scaled if self._scaler is None else self._scaler.scale(scaled)).backward()  # type: ignore[no-untyped-call]
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

    def check(self) -> None:
        """Raises NonFinite for a bad number that a GPU has kept to itself so far. Call it before saving."""
        if self._gate is not None and self._gate_step is not None and float(self._gate):
            raise NonFinite(
                "training is not finite any more",
                f"the gradient became NaN or infinite {int(self._gate_step)} updates before now",
                "try a lower --lr, --clip-norm 1, or --precision fp32",
            )

    def synchronize(self, modules: Iterable[nn.Module]) -> None:
        """Gives all ranks rank 0's buffers (running statistics of norms), which each rank counts for itself."""
        if self.world.size > 1:
            for module in modules:
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, src=0)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs: the loss scale and the counts of skipped steps."""
        scaler = self._scaler.state_dict() if self._scaler is not None else None
        return {"scaler": scaler, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what state_dict gave."""
        self.skipped, self.skipped_in_a_row = int(state["skipped"]), int(state["skipped_in_a_row"])
        if self._scaler is not None and state["scaler"] is not None:
            self._scaler.load_state_dict(state["scaler"])

    def _update(self, loss: Tensor, optimizer: Optimizer) -> bool:
        """Clips and steps in fp32 or bf16."""
        gradients = list(gradients_of(optimizer))
        if self._gate is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            self._update_gated(loss, gradients, optimizer)
            return True
        # One look at the device for all numbers: the norm of each gradient, and the loss, which may be infinite
        # with a gradient of zero.
        *norms, value = torch.stack([*torch._foreach_norm(gradients), loss.detach()]).tolist()
        norm = math.hypot(*norms)
        if not math.isfinite(norm + value):
            raise self._nonfinite(loss, optimizer)
        if self.clip_norm is not None and norm > self.clip_norm:
            torch._foreach_mul_(gradients, self.clip_norm / (norm + 1e-6))
        optimizer.step()
        return True

    def _update_gated(self, loss: Tensor, gradients: list[Tensor], optimizer: Any) -> None:
        """Clips and steps without waiting for the GPU; a closed gate makes the fused optimizer skip."""
        assert self._gate is not None
        assert self._gate_step is not None
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True) + loss.detach() * 0  # NaN for infinity too
        if self.clip_norm is not None:
            torch._foreach_mul_(gradients, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self._gate.logical_or_(~torch.isfinite(norm))
        self._gate_step += self._gate.to(torch.int64)
        optimizer.found_inf = self._gate
        optimizer.step()

    def _update_fp16(self, optimizer: Optimizer) -> bool:
        """Unscales, clips and steps in fp16; an overflow skips the update and halves the loss scale."""
        assert self._scaler is not None
        self._scaler.unscale_(optimizer)
        if self.clip_norm is not None:
            gradients = list(gradients_of(optimizer))
            norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
            torch._foreach_mul_(gradients, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        scale = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        skipped = self._scaler.get_scale() < scale
        self.skipped += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise NonFinite(
                f"{MAX_SKIPPED_IN_A_ROW} fp16 steps in a row overflowed",
                f"loss scale {self._scaler.get_scale():g}, learning rate {optimizer.param_groups[0]['lr']:g}",
                "try --precision bf16 or fp32, or a lower --lr",
            )
        return not skipped

    def _nonfinite(self, loss: Tensor, optimizer: Optimizer) -> NonFinite:
        """The error that names the metric, the first bad parameter and the learning rate."""
        loss = loss.detach()
        metric = f"loss is {float(loss):g}"
        if torch.isfinite(loss):
            names = {id(p): name for module in self._modules for name, p in module.named_parameters()}
            bad = (p for g in optimizer.param_groups for p in g["params"] if p.grad is not None)
            first = next((p for p in bad if not torch.isfinite(p.grad).all()), None)
            where = "the whole norm" if first is None else names.get(id(first), "an unnamed parameter")
            metric = f"gradient of {where} is not finite (loss {float(loss):g})"
        rate = optimizer.param_groups[0]["lr"]
        return NonFinite(metric, f"learning rate {rate:g}", "try a lower --lr, --clip-norm 1, or look at the data")

    def _profiled(self, name: str) -> AbstractContextManager[Any]:
        """A named span for the profiler; nothing at all while it is off."""
        return record_function(name) if self.profiling else nullcontext()


def gradients_of(optimizer: Optimizer) -> Iterator[Tensor]:
    """The gradients that an optimizer is about to use."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield parameter.grad


def choose_device(name: Device, local_rank: int) -> torch.device:
    """The device for a name; UserError where there is no such device."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        reason = "this torch was built without CUDA" if torch.version.cuda is None else "no usable GPU found"
        raise UserError("no GPU", f"--device cuda: {reason}", "use --device cpu or auto")
    if name == "cpu" or not available:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        where = f"local rank {local_rank}, {found} GPUs"
        raise UserError("more ranks than GPUs", where, "start fewer, or --device cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_precision(name: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The precision for a name; auto takes bf16 where the hardware multiplies it natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX); elsewhere it would be emulated."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            words = next((line.split() for line in file if line.startswith(("flags", "Features"))), [])
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)


def keep_freed_memory() -> None:
    """Stops glibc from giving large freed blocks back to the kernel, which each step would fault in again.

    Measured on two Zen 4 cores: 1.2 to 1.9 times the training rate. Other C libraries are left alone.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(m_mmap_threshold, 1 << 30)
            mallopt(m_trim_threshold, (1 << 31) - 1)
