"""Evaluating: modules in evaluation mode for a while, and means that are exact over batches and ranks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core.distributed import sum_over_ranks


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """No gradients, and the modules in evaluation mode; afterwards each is in the mode that it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        with torch.inference_mode():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


class Mean:
    """Means by name, weighted by number of samples, added up in float64 on the device and read once.

    Over ranks the sums are added, not the means, so uneven shards give the mean over all samples.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, sums: Mapping[str, Tensor], count: int) -> None:
        """Adds a batch: scalar tensors with sums over its `count` samples."""
        for name, value in sums.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += count

    def result(self) -> dict[str, float]:
        """The means over all samples of all ranks. Every rank has to call it, with the same names."""
        names = sorted(self._sums)
        if not names:
            raise ValueError("no batch was added; every rank needs at least one")
        stacked = torch.stack([self._sums[name] for name in names])
        packed = sum_over_ranks(torch.cat([stacked, stacked.new_tensor([float(self._count)])]))
        *sums, count = packed.tolist()
        return {name: value / count for name, value in zip(names, sums, strict=True)}


def count_weights(module: nn.Module, *, trained: bool = False) -> int:
    """Number of the module's parameters; of those that are trained alone with `trained`."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)
