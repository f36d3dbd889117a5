"""What a train step keeps in memory, with gradient checkpointing and without (projects/cifar10/checkpointing.py).

Counted on the device that is there, from outside: every tensor that an operation makes, from then until it is freed.
The weights themselves, their optimizer's state, and what a kernel needs only within itself are not counted.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core import plots
from core.accelerator import Accelerator
from projects.cifar10.checkpointing import checkpoint_stages
from projects.cifar10.config import Config
from projects.cifar10.data import Data, training_loader
from projects.cifar10.study_options import MemoryOptions
from projects.cifar10.study_precision import kept_for_backward
from projects.cifar10.study_report import Report, Row
from projects.cifar10.study_training import by_steps, load, network_for, settings, train_shortly

_SHOWN = {
    "network": "",
    "checkpointing": "",
    "kept_for_backward_mb": ",.1f",
    "peak_of_tensors_mb": ",.1f",
    "images_per_second": ",.0f",
}


def study(options: MemoryOptions) -> Report:
    """Measures a few steps of each network with and without checkpointing."""
    config = settings(options, optimizer="sgd", lr=0.01)
    data = load(config, Accelerator.of(config).device)
    for model in options.models:
        checkpoint_stages(network_for(model, data, config), model)  # refuses what cannot be
    rows = [_measured(options, model, is_on, data, config) for model in options.models for is_on in (False, True)]
    return Report(rows, _SHOWN, lambda path: _draw(rows, path), {})


def _measured(options: MemoryOptions, model: str, is_on: bool, data: Data, config: Config) -> Row:
    """The numbers of one network, each measured on a new copy of it."""
    networks = [network_for(model, data, config) for _ in range(3)]
    for network in networks if is_on else ():
        checkpoint_stages(network, model)
    training = train_shortly(networks[2], data, config, by_steps(options.max_steps))
    return {
        "network": model,
        "checkpointing": "yes" if is_on else "no",
        "kept_for_backward_mb": kept_for_backward(networks[0], data, config) / 1e6,
        "peak_of_tensors_mb": _peak(networks[1], data, config) / 1e6,
        "images_per_second": training.images_per_second,
    }


def _peak(network: torch.nn.Module, data: Data, config: Config) -> int:
    """The most bytes of tensors at any time in a forward and a backward pass."""
    accelerator = Accelerator.of(config)
    accelerator.prepare(network, channels_last=True)
    images, labels = accelerator.to_device(next(iter(training_loader(data, config, accelerator).batches(0))))
    network.train()
    with PeakOfTensors() as memory:
        with accelerator.autocast():
            logits = network(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
    peak: int = memory.peak
    return peak


class PeakOfTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that are made within it: now, and at most so far (peak)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Called by torch for every operation."""
        results = func(*args, **(kwargs or {}))
        own = {_storage(each) for each in tree_leaves((args, kwargs or {})) if isinstance(each, Tensor)}
        for result in tree_leaves(results):
            if isinstance(result, Tensor) and _storage(result) not in own:
                self._add(result)
        return results

    def _add(self, tensor: Tensor) -> None:
        """Counts a tensor's memory until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def freed(_: object) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storage(tensor: Tensor) -> int:
    """What tells one tensor's memory from another's."""
    key: int = tensor.untyped_storage()._cdata
    return key


def _draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Bars: the peak of memory and the speed of each network, without and with checkpointing."""
    drawn, grid = plots.figure(12, 4, 1, 2)
    names = list(dict.fromkeys(row["network"] for row in rows))
    panels = {"peak_of_tensors_mb": "peak of tensors, MB", "images_per_second": "images a second"}
    for axis, (key, title) in zip(grid[0], panels.items(), strict=True):
        for number, (is_on, label) in enumerate((("no", "all activations kept"), ("yes", "checkpointing"))):
            values = [row[key] for row in rows if row["checkpointing"] == is_on]
            axis.bar([place + 0.4 * number - 0.2 for place in range(len(names))], values, width=0.4, label=label)
        axis.set_xticks(range(len(names)), names)
        axis.set_title(title)
    grid[0][0].legend(fontsize=8)
    plots.save_figure(drawn, path)
