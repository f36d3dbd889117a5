"""The operations of cuda_ext against eager PyTorch, and on a GPU against torch.compile and a copy of as many bytes.

Forward and backward where there is a derivative. On a GPU two times of a call stand side by side: that of the device,
from replays of a CUDA graph that holds the call, and that of the host, which only hands the work to the GPU.
"""

import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from core.devices import set_up_backend
from cuda_ext import build
from tests.benchmarks import measure
from tests.benchmarks.kernel_cases import (
    Call,
    Comparison,
    of_augment,
    of_focal,
    of_gram,
    of_norm,
    of_pool_norm,
    of_resize,
)

EAGER, OURS, COMPILED, COPY = "eager PyTorch", "cuda_ext", "torch.compile", "a copy of as many bytes"
ON_CPU = {"wall_ms": "wall ms", "processor_ms": "processor ms"}
ON_GPU = {"device_ms": "device ms", "host_ms": "host ms", "gigabytes_per_second": "GB/s"}


def on_cpu(arguments: Namespace, skipped: dict[str, str]) -> dict[str, Comparison]:
    """What is compared on a CPU, by the name of its table."""
    compared = {}
    for num in arguments.batch_sizes:
        compared[f"augment, {num} images"] = of_augment(num, 32, torch.bfloat16, "cpu")
    for dtype in (torch.float32, torch.bfloat16):
        for name, layout in (("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)):
            table = f"instance_norm_act, {name}, {str(dtype).removeprefix('torch.')}"
            compared[table] = of_norm(4, arguments.size, dtype, "cpu", layout)
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for pool in (True, False):
            table = f"pool_norm_act, {'' if pool else 'not '}pooled, {name}"
            compared[table] = of_pool_norm(64, 64, max(4, arguments.size // 4), pool, dtype, "cpu")
        compared[f"crop_resize, {name}"] = of_resize(8, 224 if arguments.size > 4 else 4, dtype, "cpu")
    compared["gram_matrix"] = of_gram(4, arguments.size, torch.float32, "cpu")
    if find_spec("torchvision") is None:
        skipped["sigmoid_focal_loss"] = "torchvision is not installed"
    else:
        compared["sigmoid_focal_loss"] = of_focal(arguments.rows, 21, torch.float32, "cpu")
    return compared


def on_gpu(arguments: Namespace, skipped: dict[str, str]) -> dict[str, Comparison]:
    """What is compared on a GPU: larger than its cache."""
    half = torch.bfloat16
    compared = {"augment, 1024 images, GPU": of_augment(1024, 32, half, "cuda")}
    compared["augment, 100000 images, GPU"] = of_augment(100_000, 32, half, "cuda")
    for name, layout in (("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)):
        compared[f"instance_norm_act, {name}, bfloat16, GPU"] = of_norm(16, 256, half, "cuda", layout)
    for channels, size in ((64, 31), (256, 15), (256, 7)):
        table = f"pool_norm_act, 2000×{channels}×{size}², bfloat16, GPU"
        compared[table] = of_pool_norm(2000, channels, size, True, half, "cuda")
    compared["crop_resize, bfloat16, GPU"] = of_resize(256, 224, half, "cuda")
    compared["gram_matrix, bfloat16, GPU"] = of_gram(16, 256, half, "cuda")
    if find_spec("torchvision") is None:
        skipped["sigmoid_focal_loss, GPU"] = "torchvision is not installed"
    else:
        for dtype in (torch.float32, half):
            table = f"sigmoid_focal_loss, {str(dtype).removeprefix('torch.')}, GPU"
            compared[table] = of_focal(8 * 76_725, 80, dtype, "cuda")
    return compared


def measured(call: Call, repeats: int) -> dict[str, float]:
    """Wall and processor time of one call, the mean of some after two that are not counted."""
    for _ in range(2):
        call()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    wall, processor = (time.perf_counter() - wall) / repeats, (time.process_time() - processor) / repeats
    return {"wall_ms": 1e3 * wall, "processor_ms": 1e3 * processor}


def captured(call: Call) -> torch.cuda.CUDAGraph:
    """A CUDA graph that holds one call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def measured_on_gpu(call: Call, graph: torch.cuda.CUDAGraph | None, repeats: int, num_bytes: int) -> dict[str, float]:
    """The host's time of one call; with a graph also the device's, and the bytes a second that it comes to."""
    call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    found = {"host_ms": 1e3 * (time.perf_counter() - began) / repeats}
    torch.cuda.synchronize()
    if graph is None:
        return found
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    start.record()
    for _ in range(repeats):
        graph.replay()
    end.record()
    end.synchronize()
    milliseconds = start.elapsed_time(end) / repeats
    return found | {"device_ms": milliseconds, "gigabytes_per_second": num_bytes / milliseconds / 1e6}


def sides_of(compared: Comparison, repeats: int, on_gpu: bool) -> dict[str, measure.Side]:
    """The ways to compare, as measurements."""
    functions = {EAGER: compared.eager, OURS: compared.ours, **compared.others}
    calls = {name: compared.call(function) for name, function in functions.items()}
    if not on_gpu:
        return {name: partial(measured, call, repeats) for name, call in calls.items()}
    calls[COMPILED] = compared.call(torch.compile(compared.eager))
    source = torch.empty(compared.num_bytes // 2, dtype=torch.uint8, device="cuda")
    calls[COPY] = partial(torch.empty_like(source).copy_, source)
    sides: dict[str, measure.Side] = {}
    for name, call in calls.items():
        graph = captured(call) if compared.in_graph or name in (OURS, COPY) else None
        sides[name] = partial(measured_on_gpu, call, graph, repeats, compared.num_bytes)
    return sides


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("kernels", "The operations of cuda_ext against eager PyTorch.", rounds=15)
    flags.add_argument("--repeats", type=int, default=10, help="calls a round (default: %(default)s)")
    flags.add_argument("--batch-sizes", type=int, nargs="+", default=[250, 512, 1024], help="images to augment")
    flags.add_argument("--size", type=int, default=128, help="height and width to normalize (default: %(default)s)")
    flags.add_argument("--rows", type=int, default=25_872, help="anchors of the focal loss (default: %(default)s)")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    set_up_backend(torch.device("cpu"), deterministic=False)  # as the projects' programs have it
    skipped: dict[str, str] = {}
    tables: dict[str, Any] = {}
    has_gpu = torch.cuda.is_available()
    plans = [(on_cpu, False), *([(on_gpu, True)] if has_gpu else [])]
    if not has_gpu:
        skipped["GPU"] = "there is none"
    for device in ("cpu", "cuda") if has_gpu else ("cpu",):
        if not build.ensure(device):
            skipped[f"compiled {device} kernels"] = str(build.status(device).reason)
    for plan, is_gpu in plans:
        for title, compared in plan(arguments, skipped).items():
            sides = sides_of(compared, arguments.repeats, is_gpu)
            rows = measure.summarize(measure.interleaved(sides, arguments.rounds), EAGER)
            measure.show(title, rows, ON_GPU if is_gpu else ON_CPU, EAGER)
            tables[title] = rows
    kernels = {device: str(build.status(device).active) for device in build.DEVICES}
    measure.write("kernels", argv, arguments, tables, skipped, baseline=EAGER, ours=OURS, compiled_kernels=kernels)


if __name__ == "__main__":
    main()
