"""The networks side by side: weights, multiply-adds, speed, and the accuracy after equal time of training."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core import plots
from core.accelerator import Accelerator
from core.evaluation import count_weights, evaluating
from projects.cifar10.study_options import NetworksOptions
from projects.cifar10.study_report import Report, Row
from projects.cifar10.study_training import by_seconds, load, network_for, settings, train_shortly

_SHOWN = {
    "network": "",
    "weights": ",",
    "million_multiply_adds": ",.1f",
    "images_per_second": ",.0f",
    "images": ",",
    "val_accuracy": ".3f",
}


def study(options: NetworksOptions) -> Report:
    """Trains each network for the same time with the same optimizer, AdamW, and no tuning."""
    config = settings(options, optimizer="adamw", lr=options.lr)
    accelerator = Accelerator.of(config)
    data = load(config, accelerator.device)
    networks = {name: network_for(name, data, config) for name in options.models}
    rows: list[Row] = []
    for name, network in networks.items():
        flops = count_flops(network, config.image_size)
        share = by_seconds(options.seconds, accelerator.device)
        training = train_shortly(network_for(name, data, config), data, config, share)
        rows.append(
            {
                "network": name,
                "weights": count_weights(network),
                "million_multiply_adds": flops / 2e6,
                "images_per_second": training.images_per_second,
                "images": training.num_images,
                "val_accuracy": training.accuracy,
            }
        )
    return Report(rows, _SHOWN, lambda path: _draw(rows, options.seconds, path), {})


def count_flops(network: nn.Module, size: int) -> int:
    """Floating-point operations of one image's forward pass, two for each multiply-add."""
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops())


def _draw(rows: list[Row], seconds: float, path: Path) -> None:
    """Accuracy over speed; a circle's area is the number of weights."""
    drawn, axes = plots.figure(7, 4.6)
    axis: Any = axes[0, 0]
    for row in rows:
        x, y = row["images_per_second"], row["val_accuracy"] or 0.0
        axis.scatter(x, y, s=20 + row["weights"] / 4e4, alpha=0.5)
        axis.annotate(row["network"], (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axis.set(xscale="log", xlabel="images a second", ylabel="validation accuracy")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title(f"after {seconds:g} seconds of training; area: weights", fontsize=9)
    axis.grid(alpha=0.3)
    plots.save_figure(drawn, path)
