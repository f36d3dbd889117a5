"""Gradient checkpointing: less memory for a second forward pass (Chen et al. 2016, "Training Deep Nets with Sublinear
Memory Cost", arXiv 1604.06174).

For the backward pass a network keeps the input of each of its blocks, or of about √n groups of n plain layers, and
computes the other activations once more when it comes to them. https://docs.pytorch.org/docs/stable/checkpoint.html
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core.errors import UserError

_STAGES = ("stages", "features", "blocks")  # what the networks call their sequence


def checkpoint_stages(network: nn.Module, name: str) -> None:
    """Has the network keep less in training, in place; its weights, their names and their gradients stay the same.

    name: of the network, for the message. Raises UserError where it is no sequence of stages.
    """
    for attribute in _STAGES:
        stages = getattr(network, attribute, None)
        if isinstance(stages, nn.Sequential):
            setattr(network, attribute, CheckpointedStages(*stages))
            return
    todo = "leave it out, or take wide, fast, a resnet, alexnet, vgg11, densenet or vit-tiny"
    raise UserError("the network is no sequence of stages", f"--gradient-checkpointing with --model {name}", todo)


class CheckpointedStages(nn.Sequential):
    """Stages one after the other, of which only the inputs are kept for the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """What the stages give."""
        stages = list(self)
        if not (self.training and torch.is_grad_enabled()):
            for stage in stages:
                x = stage(x)
            return x
        are_blocks = any(list(stage.children()) for stage in stages)
        size = 1 if are_blocks else math.ceil(math.sqrt(len(stages)))
        for start in range(0, len(stages), size):
            group = nn.Sequential(*stages[start : start + size])
            # No stage draws random numbers, so that their state need not be restored.
            x = checkpoint(
                group, x, use_reentrant=False, preserve_rng_state=False, context_fn=partial(_contexts, group)
            )
        return x


def _contexts(group: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of the first forward pass and of the second."""
    return nullcontext(), _without_statistics(group)


@contextmanager
def _without_statistics(group: nn.Module) -> Iterator[None]:
    """Within it, batch norms leave their running statistics alone, which have seen the batch already."""
    norms = [module for module in group.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
