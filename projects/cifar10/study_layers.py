"""What goes on in each layer while a network trains: deviation of activations, norms of gradients, dead units.

All of it is seen from outside, of an ordinary network that knows nothing of it. Hooks watch layers and weights
(https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.register_forward_hook); ReLU, which
is a function here and no module, is watched by a TorchFunctionMode
(https://docs.pytorch.org/docs/stable/torch.overrides.html).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core import plots
from core.accelerator import Accelerator
from projects.cifar10.study_options import LayersOptions
from projects.cifar10.study_report import Report, Row, finite
from projects.cifar10.study_training import by_steps, load, network_for, settings, train_shortly

Table = dict[str, dict[int, float]]  # layer → step → value, layers in the order of the forward pass


def study_activations(options: LayersOptions) -> Report:
    """The deviation of each layer's output, and the share of its units that are 0 for a whole batch."""
    return _study(options, ("activation std", "dead units"))


def study_gradients(options: LayersOptions) -> Report:
    """The norm of each weight's gradient, and its share of the weight's own norm."""
    return _study(options, ("gradient norm", "gradient / weight"))


def _study(options: LayersOptions, shown: Sequence[str]) -> Report:
    """Watches each network's training and keeps the named quantities."""
    config = settings(options, optimizer="sgd", lr=options.lr)
    data = load(config, Accelerator.of(config).device)
    networks = {model: network_for(model, data, config) for model in options.models}
    tables: dict[str, Table] = {}
    rows: list[Row] = []
    for model, network in networks.items():
        watcher = LayerWatcher(network, watched_steps(options.max_steps))
        training = train_shortly(network, data, config, by_steps(options.max_steps), watch=watcher.watch)
        for quantity in shown:
            table = watcher.tables[quantity]
            tables[f"{model}: {quantity}"] = table
            firsts, lasts = ([list(values.values())[at] for values in table.values()] for at in (0, -1))
            rows.append(
                {
                    "network": model,
                    "quantity": quantity,
                    "layers": len(table),
                    "first_step_least": min(firsts, default=None),
                    "first_step_most": max(firsts, default=None),
                    "last_step_least": min(lasts, default=None),
                    "last_step_most": max(lasts, default=None),
                    "val_accuracy": training.accuracy,
                }
            )
    numbers = {
        name: {layer: {str(step): finite(v) for step, v in values.items()} for layer, values in table.items()}
        for name, table in tables.items()
    }
    columns = {"network": "", "quantity": "", "layers": "", "val_accuracy": ".3f"}
    columns |= {f"{when}_step_{what}": ".3g" for when in ("first", "last") for what in ("least", "most")}
    return Report(rows, columns, lambda path: draw_heat_maps(tables, len(networks), path), {"layers": numbers})


def watched_steps(max_steps: int) -> frozenset[int]:
    """The first step, the last one, and about ten between them, closer at the beginning."""
    steps = {0, max_steps - 1}
    step = 1.0
    while step < max_steps - 1:
        steps.add(int(step))
        step = max(step + 1, step * 1.6)
    return frozenset(steps)


class LayerWatcher:
    """Records the quantities of a network's layers in some steps of its training.

    tables: by quantity. Layers are convolutions and linear layers, by their names in the network; ReLUs are numbered.
    """

    def __init__(self, network: nn.Module, steps: frozenset[int]) -> None:
        self.network, self.steps = network, steps
        self.tables: dict[str, Table] = {
            name: {} for name in ("activation std", "dead units", "gradient norm", "gradient / weight")
        }

    @contextmanager
    def watch(self, step: int) -> Iterator[None]:
        """Within it, forward and backward passes are recorded as those of this step."""
        if step not in self.steps:
            yield
            return
        self.num_relus = 0
        layers = {n: m for n, m in self.network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        handles: list[Any] = []
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(self._seen_output(name, step)))
            if layer.weight.requires_grad:
                handles.append(layer.weight.register_post_accumulate_grad_hook(self._seen_gradient(name, step)))
        try:
            with _Relus(self, step):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def put(self, quantity: str, layer: str, step: int, value: Tensor) -> None:
        """Notes a number."""
        self.tables[quantity].setdefault(layer, {})[step] = float(value)

    def _seen_output(self, name: str, step: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            self.put("activation std", name, step, output.detach().float().std())

        return hook

    def _seen_gradient(self, name: str, step: int) -> Any:
        def hook(weight: Tensor) -> None:
            assert weight.grad is not None
            norm = weight.grad.float().norm()
            self.put("gradient norm", name, step, norm)
            self.put("gradient / weight", name, step, norm / weight.detach().norm().clamp(min=1e-12))

        return hook


class _Relus(TorchFunctionMode):
    """Within it, results of ReLU are given to a watcher, numbered in the order of the forward pass."""

    def __init__(self, watcher: LayerWatcher, step: int) -> None:
        super().__init__()
        self.watcher, self.step = watcher, step

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (F.relu, torch.relu):
            alive = (result.detach() > 0).transpose(0, 1).flatten(1).any(1)  # of each channel or unit, in the batch
            self.watcher.num_relus += 1
            name = f"relu {self.watcher.num_relus:02}"
            self.watcher.put("dead units", name, self.step, 1 - alive.float().mean())
        return result


def draw_heat_maps(tables: Mapping[str, Table], rows: int, path: Path) -> None:
    """A panel for each table: layers downwards, steps to the right; shares as they are, other numbers by logarithm."""
    columns = max(1, len(tables) // max(1, rows))
    longest = max((len(table) for table in tables.values()), default=1)
    drawn, grid = plots.figure(6.2 * columns, max(3.0, 0.17 * longest + 1.4) * rows, rows, columns)
    for axis, (title, table) in zip(grid.flat, tables.items(), strict=False):
        is_share = title.endswith("dead units")
        steps = sorted({step for values in table.values() for step in values})
        values = np.array([[row.get(step, np.nan) for step in steps] for row in table.values()])
        if not values.size:
            axis.set_title(f"{title}: there is no ReLU")
            axis.set_axis_off()
            continue
        shades = values if is_share else np.log10(np.maximum(values, 1e-8))
        style: dict[str, Any] = {"cmap": "viridis"}
        if is_share:
            style = {"cmap": "magma", "vmin": 0, "vmax": max(0.1, float(np.nanmax(values)))}
        image = axis.imshow(shades, aspect="auto", **style)
        axis.set(title=title, xlabel="step", xticks=range(len(steps)), yticks=range(len(table)))
        axis.set_xticklabels(steps, fontsize=7)
        axis.set_yticklabels(table, fontsize=6)
        drawn.colorbar(image, ax=axis, label="share" if is_share else "log10")
    plots.save_figure(drawn, path)
