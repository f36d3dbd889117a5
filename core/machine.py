"""What this machine can do: python -m core.machine [--output DIR] [--json].

Matrix products by size and dtype, copies between host and GPU from pageable and pinned memory, what an operation in
place saves, and the size from which the GPU wins. Where there is no GPU, it says so and measures the processor. Times
are the best of several, because other programs only ever make them longer. Asynchronous execution and pinned memory:
https://docs.pytorch.org/docs/stable/notes/cuda.html.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import machine_report
from core.command_line import Parser
from core.distributed import World
from core.environment import environment
from core.errors import UserError, run_command
from core.files import write_json

_FORMAT = 1
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
_CPU_SIZES, _GPU_SIZES = (32, 64, 128, 256, 512, 1024, 2048), (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_COPY_MEGABYTES = (1, 16, 128)
_SECONDS_EACH, _SLOWEST_SECONDS, _MOST_REPEATS = 0.15, 0.25, 200
_MEMORY_MEGABYTES = 64


@dataclass(frozen=True)
class Backend:
    """A device and what is particular to it, so that the same measurements run on each.

    synchronize: waits for all queued work. memory: bytes (allocated, reserved, peak allocated); reset_peak: begins the
    peak anew; both None where the device keeps no such counts. pin: a host tensor in pinned memory.
    """

    name: str
    device: torch.device
    synchronize: Callable[[], None]
    memory: Callable[[], tuple[int, int, int]] | None = None
    reset_peak: Callable[[], None] | None = None
    pin: Callable[[Tensor], Tensor] | None = None


def cpu() -> Backend:
    """The processor, which queues nothing."""
    return Backend("cpu", torch.device("cpu"), synchronize=lambda: None)


def gpu() -> Backend | None:
    """The GPU, if there is one."""
    if not torch.cuda.is_available():
        return None

    def memory() -> tuple[int, int, int]:
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), torch.cuda.max_memory_allocated()

    return Backend(
        "gpu",
        torch.device("cuda", torch.cuda.current_device()),
        torch.cuda.synchronize,
        memory,
        torch.cuda.reset_peak_memory_stats,
        Tensor.pin_memory,
    )


def measure(host: Backend, other: Backend | None, *, quick: bool = False) -> dict[str, Any]:
    """All measurements. host: the processor; other: the GPU, if there is one. quick: the smallest sizes only."""
    kept = 3 if quick else None
    products = {"cpu": _matrix_products(host, _CPU_SIZES[:kept])}
    megabytes = _COPY_MEGABYTES[: 1 if quick else None]
    copies = [_copy_rate("host → host", host, size) for size in megabytes]
    wins: dict[str, Any] = {}
    if other is not None:
        products["gpu"] = _matrix_products(other, _GPU_SIZES[:kept])
        copies += _gpu_copies(other, megabytes)
        with_copies = _matrix_products(other, _CPU_SIZES[:kept], from_host=True)
        for dtype in products["cpu"]:
            wins[dtype] = {
                "data on the gpu": wins_from(products["cpu"][dtype], products["gpu"].get(dtype, {})),
                "with copies": wins_from(products["cpu"][dtype], with_copies.get(dtype, {})),
            }
    return {
        "format": _FORMAT,
        "environment": {name: value for name, value in environment(World()).items() if name != "command"},
        "gpu": None if other is None else other.name,
        "matrix_product_seconds": products,
        "copies": copies,
        "memory": None if other is None else _memory_use(other),
        "gpu_wins_from_size": wins,
    }


def _best_seconds(call: Callable[[], object], synchronize: Callable[[], None]) -> float:
    """The shortest time of a call; it is repeated until a budget is spent, after a first time that does not count."""
    call()
    synchronize()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < _SECONDS_EACH and len(times) < _MOST_REPEATS):
        began = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - began)
        if times[-1] > _SLOWEST_SECONDS:
            break
    return min(times)


def _matrix_products(backend: Backend, sizes: Sequence[int], *, from_host: bool = False) -> dict[str, dict[int, float]]:
    """Seconds of a product of two square matrices, by dtype and size, up to the first size that takes long.

    from_host: with the copies of both factors to the device and of the product back.
    """
    found: dict[str, dict[int, float]] = {}
    for name, dtype in _DTYPES.items():
        for size in sizes:
            where = torch.device("cpu") if from_host else backend.device
            a, b = (torch.full((size, size), 0.5, dtype=dtype, device=where) for _ in range(2))

            def multiply(a: Tensor = a, b: Tensor = b) -> Tensor:
                return a @ b if not from_host else (a.to(backend.device) @ b.to(backend.device)).cpu()

            try:
                seconds = _best_seconds(multiply, backend.synchronize)
            except RuntimeError:  # a dtype that the device does not multiply
                break
            found.setdefault(name, {})[size] = seconds
            if seconds > _SLOWEST_SECONDS / 2:
                break
    return found


def wins_from(one: Mapping[int, float], other: Mapping[int, float]) -> int | None:
    """The smallest size from which on `other` takes less time than `one` at every size that both were measured at."""
    winner = None
    for size in sorted(set(one) & set(other)):
        if other[size] >= one[size]:
            winner = None
        elif winner is None:
            winner = size
    return winner


def _gpu_copies(backend: Backend, megabytes: Sequence[int]) -> list[dict[str, Any]]:
    """Copies to the device and back, from pageable and from pinned memory."""
    assert backend.pin is not None
    rows = []
    for size in megabytes:
        for kind, prepare in (("pageable", lambda tensor: tensor), ("pinned", backend.pin)):
            host = prepare(torch.ones(size << 20, dtype=torch.uint8))
            there = torch.empty(size << 20, dtype=torch.uint8, device=backend.device)
            for way, target, source in (("host → gpu", there, host), ("gpu → host", host, there)):
                seconds = _best_seconds(
                    lambda target=target, source=source: target.copy_(source, non_blocking=True),  # type: ignore[misc]
                    backend.synchronize,
                )
                rows.append(_copy_row(f"{way}, {kind}", size, seconds))
        rows.append(_copy_rate("gpu → gpu", backend, size))
    return rows


def _copy_rate(way: str, backend: Backend, megabytes: int) -> dict[str, Any]:
    """A copy within one device's memory."""
    source = torch.ones(megabytes << 20, dtype=torch.uint8, device=backend.device)
    target = torch.empty_like(source)
    return _copy_row(way, megabytes, _best_seconds(lambda: target.copy_(source), backend.synchronize))


def _copy_row(way: str, megabytes: int, seconds: float) -> dict[str, Any]:
    """A row of the table of copies."""
    return {"way": way, "megabytes": megabytes, "gigabytes_per_second": (megabytes << 20) / seconds / 1e9}


def _memory_use(backend: Backend) -> list[dict[str, Any]]:
    """MB allocated, reserved and at the peak, with an operation out of place and in place, on a tensor of 64 MB."""
    assert backend.memory is not None
    assert backend.reset_peak is not None
    operations: dict[str, Callable[[Tensor], Tensor]] = {
        "y = relu(x)": torch.relu,
        "relu_(x)": torch.relu_,
        "y = x * 2 + 1": lambda x: x * 2 + 1,
        "x.mul_(2).add_(1)": lambda x: x.mul_(2).add_(1),
    }
    rows = []
    for name, operation in operations.items():
        x = torch.ones(_MEMORY_MEGABYTES << 18, device=backend.device)
        backend.synchronize()
        backend.reset_peak()
        before = backend.memory()[0]
        y = operation(x)
        backend.synchronize()
        allocated, reserved, peak = backend.memory()
        numbers = {"allocated": allocated - before, "peak": peak - before, "reserved in all": reserved}
        rows.append({"operation": name, **{key: round(value / 2**20, 1) for key, value in numbers.items()}})
        del x, y
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser("core.machine", (__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for machine.json and machine.png")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes only, in a few seconds")
    arguments = parser.parse_args(argv)
    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_dir():
        raise UserError("not a folder", f"--output {arguments.output}", "give another")
    found = measure(cpu(), gpu(), quick=arguments.quick)
    print(json.dumps(found, indent=1) if arguments.json else machine_report.tables(found))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output / "machine.json", found)
        machine_report.draw(found, arguments.output / "machine.png")


if __name__ == "__main__":
    run_command(main)
