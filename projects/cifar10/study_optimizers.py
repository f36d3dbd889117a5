"""SGD, Nesterov, Adam, AdamW and Muon under four schedules, each at the best of four learning rates.

Nesterov momentum: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html; Adam: Kingma and Ba 2015
(arXiv 1412.6980); AdamW: Loshchilov and Hutter 2019 (arXiv 1711.05101); Muon: core/optim.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import plots
from core.accelerator import Accelerator
from projects.cifar10.config import Config
from projects.cifar10.data import Data
from projects.cifar10.study_options import OptimizersOptions
from projects.cifar10.study_report import Report, Row, finite
from projects.cifar10.study_training import by_steps, load, network_for, settings, train_shortly

SCHEDULES: tuple[Literal["constant", "step", "cosine", "one-cycle"], ...] = ("constant", "step", "cosine", "one-cycle")
# Settings of the train program, and the learning rates that are tried under the cosine schedule.
OPTIMIZERS: Mapping[str, tuple[Mapping[str, Any], tuple[float, ...]]] = {
    "SGD": ({"optimizer": "sgd", "momentum": 0.0}, (0.05, 0.15, 0.5, 1.5)),
    "Nesterov": ({"optimizer": "sgd", "momentum": 0.9}, (0.01, 0.03, 0.1, 0.3)),
    "Adam": ({"optimizer": "adam"}, (0.001, 0.003, 0.01, 0.03)),
    "AdamW": ({"optimizer": "adamw"}, (0.001, 0.003, 0.01, 0.03)),
    "Muon": ({"optimizer": "muon", "momentum": 0.95}, (0.01, 0.02, 0.05, 0.1)),
}
_SHOWN = {
    "optimizer": "",
    "schedule": "",
    "lr": "g",
    "last_loss": ".3f",
    "val_accuracy": ".3f",
    "images_per_second": ",.0f",
}
_SMOOTHED_STEPS = 10


def study(options: OptimizersOptions) -> Report:
    """Chooses each optimizer's learning rate by its loss, then trains it under each schedule."""
    config = settings(options)
    data = load(config, Accelerator.of(config).device)
    network_for(options.model, data, config)  # refuses what cannot be
    rows: list[Row] = []
    curves: dict[str, list[float | None]] = {}
    tuning: dict[str, dict[str, float | None]] = {}
    for name, (changes, rates) in OPTIMIZERS.items():
        tried = {lr: _loss_with(options, replace(config, **changes, schedule="cosine", lr=lr), data) for lr in rates}
        best = min(tried, key=lambda lr: tried[lr])
        tuning[name] = {f"{lr:g}": finite(loss) for lr, loss in tried.items()}
        for schedule in SCHEDULES:
            changed = replace(config, **changes, schedule=schedule, lr=best)
            network = network_for(options.model, data, changed)
            training = train_shortly(network, data, changed, by_steps(options.max_steps))
            rows.append(
                {
                    "optimizer": name,
                    "schedule": schedule,
                    "lr": best,
                    "last_loss": finite(training.last_loss(_SMOOTHED_STEPS)),
                    "val_accuracy": training.accuracy,
                    "images_per_second": training.images_per_second,
                }
            )
            curves[f"{name}, {schedule}"] = [finite(loss) for loss in training.losses]
    return Report(rows, _SHOWN, lambda path: _draw(curves, path), {"tuning": tuning, "losses": curves})


def _loss_with(options: OptimizersOptions, config: Config, data: Data) -> float:
    """The mean loss at the end of a short training; infinite where it diverges."""
    training = train_shortly(network_for(options.model, data, config), data, config, by_steps(options.tuning_steps))
    return training.last_loss(_SMOOTHED_STEPS)


def _draw(curves: Mapping[str, list[float | None]], path: Path) -> None:
    """The loss over the steps, smoothed; a panel for each schedule, a line for each optimizer."""
    drawn, grid = plots.figure(16, 3.8, 1, len(SCHEDULES))
    highest = 2.4
    for axis, schedule in zip(grid[0], SCHEDULES, strict=True):
        for name in OPTIMIZERS:
            losses = np.array([np.nan if loss is None else loss for loss in curves[f"{name}, {schedule}"]])
            width = min(_SMOOTHED_STEPS, -(-len(losses) // 10))
            if width:
                axis.plot(np.convolve(losses, np.ones(width) / width, "valid"), label=name, linewidth=1.3)
        axis.set(title=schedule, xlabel="step", ylabel="loss")
        axis.set_ylim(top=highest)
        axis.grid(alpha=0.3)
    grid[0][0].legend(fontsize=8)
    plots.save_figure(drawn, path)
