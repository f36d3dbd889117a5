"""The ranks of one training, as torchrun describes them: who am I, who writes, what did all of us decide.

One process is the normal case, and every function here is then a plain return. torchrun sets RANK, LOCAL_RANK and
WORLD_SIZE (https://docs.pytorch.org/docs/stable/elastic/run.html); the collectives are torch.distributed's, gloo on
a CPU and nccl on GPUs.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from core.errors import UserError

_COLLECTIVE_TIMEOUT_SECONDS = 120  # a rank that hangs ends the others after this long, torchrun a minute later


@dataclass(frozen=True)
class World:
    """This process's place among the ranks."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the only one that writes files and prints."""
        return self.rank == 0


def world_from_environment() -> World:
    """The place that the launcher gave this process. Raises UserError where its variables do not fit together."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = {name: os.environ[name] for name in names if name in os.environ}
    if not given:
        return World()
    try:
        world = World(int(given["RANK"]), int(given["LOCAL_RANK"]), int(given["WORLD_SIZE"]))
        valid = 0 <= world.rank < world.size and world.local_rank >= 0
    except (KeyError, ValueError):
        valid = False
    if not valid:
        raise UserError("the launcher's variables do not fit together", given, "start with torchrun, or unset them")
    return world


def start(world: World, device_type: str) -> None:
    """Joins the other ranks; does nothing for a single process."""
    if world.size == 1 or dist.is_initialized():
        return
    _leave_with_parent()
    timeout = timedelta(seconds=_COLLECTIVE_TIMEOUT_SECONDS)
    # torchrun's store outlives the ranks: without a name for each life, restarted ones may find their forerunners'
    # addresses in it and wait for them (https://github.com/pytorch/pytorch/issues/135712).
    store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
    life = PrefixStore(f"life-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if device_type == "cuda" else "gloo"
    dist.init_process_group(backend, store=life, rank=rank, world_size=size, timeout=timeout)


def stop() -> None:
    """Leaves the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()


def launcher() -> str | None:
    """What tells one torchrun from another, the same for all restarts of its ranks; None without one."""
    return f"{socket.gethostname()}/{os.getppid()}" if "TORCHELASTIC_RUN_ID" in os.environ else None


def _leave_with_parent() -> None:
    """Asks Linux to end this process when its launcher dies: torchrun, killed, would leave its ranks training."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def largest(value: int, device: torch.device) -> int:
    """The largest of all ranks' values: a signal or a fault on any rank becomes known to all of them."""
    if not dist.is_initialized():
        return value
    tensor = torch.tensor([value], dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The elementwise sum of all ranks' tensors; equal shapes and dtypes on every rank."""
    if dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def num_ranks() -> int:
    """How many ranks have joined; 1 for a single process."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_main(value: Any) -> Any:
    """Rank 0's value, on every rank; plain Python data."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: Any) -> list[Any]:
    """All ranks' values in the order of ranks, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Waits for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def broadcast_buffers(modules: Iterable[torch.nn.Module]) -> None:
    """Gives all ranks rank 0's buffers (running statistics of norms), which each rank counts for itself."""
    if dist.is_initialized():
        for module in modules:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)
