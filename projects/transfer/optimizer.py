"""What a fine-tuning trains, by which optimizer, and at which rates.

Rates of their own for head and layers: Howard and Ruder 2018 (arXiv 1801.06146).
"""

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from core.accelerator import Accelerator
from core.learner import Learner, Schedule
from core.optim import warmup_cosine
from projects.transfer.config import Config
from projects.transfer.dann import Adversarial, DomainClassifier
from projects.transfer.model import Classifier, parameter_groups


def build_learner(
    network: Classifier, config: Config, steps: int, accelerator: Accelerator, domain: DomainClassifier | None = None
) -> Learner[nn.Module]:
    """What is trained: the whole network, or on a frozen backbone the head alone. domain: learns beside it, if any."""
    optimizer = build_optimizer(network, config)
    if domain is not None:
        optimizer.add_param_group({"params": list(domain.parameters()), "lr": config.lr, "begins": 0.0})
    schedules = build_schedules(optimizer, config, steps)
    if config.strategy != "head":
        both = None if domain is None else Adversarial(network, domain)
        return Learner(network, optimizer, schedules, accelerator, ema=config.ema, whole=both)
    whole = None if config.caches else network  # with cached features a train step calls the head itself
    return Learner(network.head, optimizer, schedules, accelerator, ema=config.ema, whole=whole)


def build_optimizer(network: Classifier, config: Config) -> Optimizer:
    """The optimizer that the settings name, with a group for each rate; frozen layers are in none."""
    groups = parameter_groups(network, config)
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, fused=True)
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def build_schedules(optimizer: Optimizer, config: Config, steps: int) -> list[Schedule]:
    """Each group's factor at a step: 0 until the group begins to be trained, then warm-up and cosine."""

    def schedule(begin: int) -> Schedule:
        shape = warmup_cosine(steps - begin, round(config.warmup * (steps - begin)))
        return lambda step: shape(step - begin) if step >= begin else 0.0

    return [schedule(min(steps - 1, math.ceil(group["begins"] * steps))) for group in optimizer.param_groups]


def averaged_classifier(network: Classifier, learner: Learner[nn.Module]) -> nn.Module:
    """The classifier with averaged weights: the learner's own, or its head on the frozen backbone."""
    return learner.averaged if learner.network is network else nn.Sequential(network.backbone, learner.averaged)
