"""The operations of cuda_ext against eager PyTorch, and on a GPU against torch.compile and a copy of as many bytes.

Forward and backward where there is a derivative. Eager is what one writes without cuda_ext: the gather formula for
pictures, F.instance_norm with F.relu, matrix products that autograd differentiates, torchvision's focal loss with the
targets of zeros and ones that it takes.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.devices import set_up_backend
from cuda_ext import augment, build, gram_matrix, instance_norm_act, reference, sigmoid_focal_loss
from tests.benchmarks import measure

EAGER, OURS, COMPILED, COPY = "eager PyTorch", "cuda_ext", "torch.compile", "a copy of as many bytes"
PADDING, CUTOUT = 2, 8
COLUMNS = {"wall_ms": "wall ms", "processor_ms": "processor ms"}
Call = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same result, and the bytes that have to be read and written for it."""

    eager: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    arguments: Sequence[Any]
    num_bytes: int
    grad: Tensor | None = None  # of the result; None: forward only

    def call(self, function: Callable[..., Tensor]) -> Call:
        """A call of one way, with its derivative."""

        def both_ways() -> object:
            result = function(*self.arguments)
            if self.grad is None:
                return result
            return torch.autograd.grad(result, [leaf for leaf in self.arguments if needs_grad(leaf)], self.grad)

        return both_ways


def needs_grad(argument: Any) -> bool:
    """Whether an argument is differentiated by."""
    return isinstance(argument, Tensor) and argument.requires_grad


def of_augment(num: int, size: int, dtype: torch.dtype, device: str) -> Comparison:
    """A batch of colored pictures out of a few thousand."""
    images = torch.randint(0, 256, (5_000, size, size, 3), dtype=torch.uint8)
    highs = (2 * PADDING + 1, 2 * PADDING + 1, 2, size, size)
    params = torch.stack([torch.randint(0, high, (num,)) for high in highs], 1)
    inputs = [images, torch.randint(0, 5_000, (num,)), params, torch.randn(3, 256).to(dtype)]
    arguments = [*(tensor.to(device) for tensor in inputs), PADDING, CUTOUT]
    return Comparison(reference.augment, augment, arguments, num * size * size * 3 * (1 + dtype.itemsize))


def of_norm(num: int, size: int, dtype: torch.dtype, device: str, layout: torch.memory_format) -> Comparison:
    """32 channels, as the first layer of a style network has them, of pictures of some size."""

    def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.relu(F.instance_norm(x, weight=weight.to(x.dtype), bias=bias.to(x.dtype)))

    x = torch.randn(num, 32, size, size, device=device).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weight, bias = (torch.randn(32, device=device, requires_grad=True) for _ in range(2))
    grad = torch.randn_like(x).detach()
    return Comparison(eager, instance_norm_act, [x, weight, bias], 8 * x.nbytes, grad)


def of_gram(num: int, size: int, dtype: torch.dtype, device: str) -> Comparison:
    """64 channels of feature maps, as the second layer of a VGG has them."""

    def eager(features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return flat @ flat.mT / features[0].numel()

    features = torch.randn(num, 64, size, size, device=device).to(dtype).requires_grad_()
    grad = torch.randn(num, 64, 64, device=device).to(dtype)
    return Comparison(eager, gram_matrix, [features], 3 * features.nbytes, grad)


def of_focal(rows: int, classes: int, dtype: torch.dtype, device: str) -> Comparison:
    """Logits of anchors, one in a hundred of which has a class."""
    from torchvision.ops import sigmoid_focal_loss as torchvision_loss

    def eager(logits: Tensor, labels: Tensor) -> Tensor:
        targets = torch.zeros_like(logits)
        targets[labels >= 0, labels[labels >= 0]] = 1
        result: Tensor = torchvision_loss(logits, targets, reduction="sum")
        return result

    logits = (torch.randn(rows, classes, device=device) - 4).to(dtype).requires_grad_()
    labels = torch.where(torch.rand(rows) < 0.01, torch.randint(0, classes, (rows,)), -1).to(device)
    grad = torch.tensor(1.0, device=device)
    return Comparison(eager, sigmoid_focal_loss, [logits, labels], 3 * logits.nbytes, grad)


def on_cpu(arguments: Namespace, skipped: dict[str, str]) -> dict[str, Comparison]:
    """What is compared on a CPU, by the name of its table."""
    compared = {}
    for num in arguments.batch_sizes:
        compared[f"augment, {num} pictures"] = of_augment(num, 32, torch.bfloat16, "cpu")
    for dtype in (torch.float32, torch.bfloat16):
        for name, layout in (("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)):
            table = f"instance_norm_act, {name}, {str(dtype).removeprefix('torch.')}"
            compared[table] = of_norm(4, arguments.size, dtype, "cpu", layout)
    compared["gram_matrix"] = of_gram(4, arguments.size, torch.float32, "cpu")
    if find_spec("torchvision") is None:
        skipped["sigmoid_focal_loss"] = "torchvision is not installed"
    else:
        compared["sigmoid_focal_loss"] = of_focal(arguments.rows, 21, torch.float32, "cpu")
    return compared


def on_gpu(arguments: Namespace, skipped: dict[str, str]) -> dict[str, Comparison]:
    """What is compared on a GPU: larger than its cache."""
    half = torch.bfloat16
    compared = {"augment, 1024 pictures, GPU": of_augment(1024, 32, half, "cuda")}
    compared["augment, 100000 pictures, GPU"] = of_augment(100_000, 32, half, "cuda")
    for name, layout in (("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)):
        compared[f"instance_norm_act, {name}, bfloat16, GPU"] = of_norm(16, 256, half, "cuda", layout)
    compared["gram_matrix, bfloat16, GPU"] = of_gram(16, 256, half, "cuda")
    if find_spec("torchvision") is None:
        skipped["sigmoid_focal_loss, GPU"] = "torchvision is not installed"
    else:
        for dtype in (torch.float32, half):
            table = f"sigmoid_focal_loss, {str(dtype).removeprefix('torch.')}, GPU"
            compared[table] = of_focal(8 * 76_725, 80, dtype, "cuda")
    return compared


def measured(call: Call, repeats: int, num_bytes: int, on_gpu: bool) -> dict[str, float]:
    """Wall and processor time of one call, the mean of some after two that are not counted; on a GPU also GB/s."""
    for _ in range(2):
        call()
    if on_gpu:
        torch.cuda.synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    if on_gpu:
        torch.cuda.synchronize()
    wall, processor = (time.perf_counter() - wall) / repeats, (time.process_time() - processor) / repeats
    found = {"wall_ms": 1e3 * wall, "processor_ms": 1e3 * processor}
    return found | ({"gigabytes_per_second": num_bytes / wall / 1e9} if on_gpu else {})


def sides_of(compared: Comparison, repeats: int, on_gpu: bool) -> dict[str, measure.Side]:
    """The ways to compare, as measurements."""
    calls = {EAGER: compared.call(compared.eager), OURS: compared.call(compared.ours)}
    if on_gpu:
        calls[COMPILED] = compared.call(torch.compile(compared.eager))
        source = torch.empty(compared.num_bytes // 2, dtype=torch.uint8, device="cuda")
        calls[COPY] = partial(torch.empty_like(source).copy_, source)
    return {name: partial(measured, call, repeats, compared.num_bytes, on_gpu) for name, call in calls.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("kernels", "The operations of cuda_ext against eager PyTorch.", rounds=15)
    flags.add_argument("--repeats", type=int, default=10, help="calls a round (default: %(default)s)")
    flags.add_argument("--batch-sizes", type=int, nargs="+", default=[250, 512, 1024], help="pictures to augment")
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
            columns = COLUMNS | ({"gigabytes_per_second": "GB/s"} if is_gpu else {})
            measure.show(title, rows, columns, EAGER)
            tables[title] = rows
    kernels = {device: str(build.status(device).active) for device in build.DEVICES}
    measure.write("kernels", argv, arguments, tables, skipped, baseline=EAGER, ours=OURS, compiled_kernels=kernels)


if __name__ == "__main__":
    main()
