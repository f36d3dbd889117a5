"""How a network begins decides how it trains: six initializations of one network, with and without norms.

Xavier: Glorot and Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html; kaiming: He et al. 2015 (arXiv
1502.01852); orthogonal: Saxe et al. 2014 (arXiv 1312.6120); last norm of a block at zero: Goyal et al. 2017 (arXiv
1706.02677). Too small and too large are kaiming's deviation divided and multiplied by four.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from core import plots
from core.accelerator import Accelerator
from core.evaluation import evaluating
from core.randomness import seed_all
from projects.cifar10.config import Config
from projects.cifar10.data import Data, training_loader
from projects.cifar10.networks.resnet import BottleneckBlock, Padding, ResidualBlock
from projects.cifar10.study_options import InitOptions
from projects.cifar10.study_report import Report, Row, finite
from projects.cifar10.study_training import by_steps, load, network_for, settings, train_shortly

_SHOWN = {
    "network": "",
    "init": "",
    "std_of_first_logits": ".3g",
    "first_loss": ".3g",
    "last_loss": ".3g",
    "val_accuracy": ".3f",
}
_HIGHEST_LOSS_DRAWN = 5.0


def _kaiming(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def _scaled(factor: float) -> Callable[[Tensor], None]:
    def fill(weight: Tensor) -> None:
        _kaiming(weight)
        weight.data.mul_(factor)

    return fill


INITS: Mapping[str, Callable[[Tensor], Any]] = {
    "kaiming": _kaiming,
    "xavier": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
    "zero last norm": _kaiming,
    "too small": _scaled(0.25),
    "too large": _scaled(4.0),
}


def study(options: InitOptions) -> Report:
    """Trains each network from each initialization; zero last norm where it has residual blocks."""
    config = settings(options, optimizer="sgd", lr=options.lr)
    accelerator = Accelerator.of(config)
    data = load(config, accelerator.device)
    rows: list[Row] = []
    curves: dict[str, list[float | None]] = {}
    for model in options.models:
        network_for(model, data, config)  # refuses what cannot be, before the first training
    for model in options.models:
        for init in INITS:
            network = network_for(model, data, config)
            if not initialize(network, init, config.seed):
                continue
            std = std_of_logits(network.to(accelerator.device), data, config, accelerator)
            training = train_shortly(network, data, config, by_steps(options.max_steps))
            rows.append(
                {
                    "network": model,
                    "init": init,
                    "std_of_first_logits": finite(std),
                    "first_loss": finite(training.losses[0]) if training.losses else None,
                    "last_loss": finite(training.last_loss(max(1, options.max_steps // 10))),
                    "val_accuracy": training.accuracy,
                }
            )
            curves[f"{model}, {init}"] = [finite(loss) for loss in training.losses]
    return Report(rows, _SHOWN, lambda path: _draw(options.models, curves, path), {"losses": curves})


def initialize(network: nn.Module, init: str, seed: int) -> bool:
    """Fills all filters and matrices; whether the network has what the initialization is about."""
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock | BottleneckBlock)]
    if init == "zero last norm" and not blocks:
        return False
    seed_all(seed, rank=0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad:
            INITS[init](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in blocks:
        last = block.norm3 if isinstance(block, BottleneckBlock) else block.norm2
        is_zero = init == "zero last norm" and not isinstance(block.shortcut, Padding)  # as the network itself does it
        nn.init.constant_(last.weight, 0.0 if is_zero else 1.0)
    return True


def std_of_logits(network: nn.Module, data: Data, config: Config, accelerator: Accelerator) -> float:
    """The deviation of an untrained network's logits over the first batch."""
    images, _ = accelerator.to_device(next(iter(training_loader(data, config, accelerator).batches(0))))
    with evaluating(network), accelerator.autocast():
        network.train()  # norms of this batch's own statistics, as in the first step
        return float(network(images).float().std())


def _draw(models: tuple[str, ...], curves: Mapping[str, list[float | None]], path: Path) -> None:
    """The loss over the steps, a panel for each network."""
    drawn, grid = plots.figure(6 * len(models), 4, 1, len(models))
    for axis, model in zip(grid[0], models, strict=True):
        for name, losses in curves.items():
            if name.startswith(f"{model}, "):
                values = np.array([np.nan if loss is None else loss for loss in losses])
                axis.plot(np.minimum(values, _HIGHEST_LOSS_DRAWN), label=name.partition(", ")[2], linewidth=1.3)
        axis.set(title=model, xlabel="step", ylabel=f"loss, cut at {_HIGHEST_LOSS_DRAWN:g}")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    plots.save_figure(drawn, path)
