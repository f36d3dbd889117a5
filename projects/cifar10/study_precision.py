"""fp32, bf16 and fp16 with and without torch.compile, on the device that is there: speed, memory, accuracy over seeds.

Mixed precision: Micikevicius et al. 2018 (arXiv 1710.03740). Two kinds of memory: what a forward pass keeps for the
backward pass, which half of the bits halve, and on a GPU the peak of all that was allocated.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from core import plots
from core.accelerator import Accelerator
from core.results import spread
from projects.cifar10.config import Config
from projects.cifar10.data import Data, training_loader
from projects.cifar10.study_options import PrecisionOptions
from projects.cifar10.study_report import Report, Row
from projects.cifar10.study_training import by_steps, load, network_for, settings, train_shortly

_SHOWN = {
    "precision": "",
    "compiled": "",
    "images_per_second": ",.0f",
    "kept_for_backward_mb": ",.1f",
    "peak_memory_mb": ",.0f",
    "val_accuracy": ".3f",
    "spread_over_seeds": ".3f",
}
_WARMUP_STEPS = 2
_MOST_SECONDS = 120.0  # of one training; fp16 takes a hundred times as long as fp32 on processors that emulate it


def study(options: PrecisionOptions) -> Report:
    """Trains with each precision and seed."""
    config = settings(options)
    device = Accelerator.of(config).device
    data = load(config, device)
    network_for(options.model, data, config)  # refuses what cannot be
    has_compiler = device.type == "cuda" or any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    rows: list[Row] = []
    for precision in ("fp32", "bf16", "fp16"):
        rows.append(_measured(options, replace(config, precision=precision), data, device))
        if options.compile and has_compiler and rows[-1]["val_accuracy"] is not None:
            rows.append(_measured(options, replace(config, precision=precision, compile=True), data, device))
    notes = [] if has_compiler or not options.compile else ["no C++ compiler, so nothing was compiled"]
    return Report(rows, _SHOWN, lambda path: _draw(rows, path), {"notes": notes})


def _measured(options: PrecisionOptions, config: Config, data: Data, device: torch.device) -> Row:
    """The numbers of a precision; a short training before the others compiles and warms up.

    Where that shows that a whole one would take very long, its speed is all that is measured.
    """
    first = train_shortly(network_for(options.model, data, config), data, config, by_steps(_WARMUP_STEPS))
    is_slow = options.max_steps * config.batch_size / first.images_per_second > _MOST_SECONDS and not config.compile
    kept = None if config.compile else kept_for_backward(network_for(options.model, data, config), data, config)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainings = [first] if is_slow else []
    for seed in () if is_slow else range(options.seed, options.seed + options.seeds):
        changed = replace(config, seed=seed)
        network = network_for(options.model, data, changed)
        trainings.append(train_shortly(network, data, changed, by_steps(options.max_steps)))
    accuracies = [training.accuracy for training in trainings]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    all_known = len(known) == len(accuracies) and not is_slow
    return {
        "precision": config.precision,
        "compiled": "yes" if config.compile else "no",
        "images_per_second": max(training.images_per_second for training in trainings),
        "kept_for_backward_mb": None if kept is None else kept / 1e6,
        "peak_memory_mb": torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None,
        "val_accuracy": sum(known) / len(known) if all_known else None,
        "spread_over_seeds": spread(known) if all_known else None,
        "accuracies": accuracies,
    }


def kept_for_backward(network: nn.Module, data: Data, config: Config) -> int:
    """Bytes that the forward pass of a batch keeps for the backward pass, without the network's own weights."""
    accelerator = Accelerator.of(config)
    accelerator.prepare(network, channels_last=True)
    images, labels = accelerator.to_device(next(iter(training_loader(data, config, accelerator).batches(0))))
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, Tensor] = {}  # by address; the tensors stay alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor.detach()
        return tensor

    network.train()
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        with accelerator.autocast():
            logits = network(images)
        F.cross_entropy(logits.float(), labels)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _draw(rows: list[Row], path: Path) -> None:
    """Bars: images a second, memory, accuracy with the spread over seeds."""
    drawn, grid = plots.figure(13, 3.8, 1, 3)
    names = [f"{row['precision']}{', compiled' if row['compiled'] == 'yes' else ''}" for row in rows]
    memory = "kept_for_backward_mb" if all(row["peak_memory_mb"] is None for row in rows) else "peak_memory_mb"
    panels: dict[str, Any] = {"images_per_second": "images a second", memory: memory, "val_accuracy": "accuracy"}
    for axis, (key, title) in zip(grid[0], panels.items(), strict=True):
        errors = [row["spread_over_seeds"] or 0.0 for row in rows] if key == "val_accuracy" else None
        axis.bar(names, [row[key] or 0.0 for row in rows], yerr=errors, color="tab:blue", capsize=4)
        axis.set_title(title.replace("_", " "))
        axis.tick_params(axis="x", rotation=30)
    plots.save_figure(drawn, path)
