"""Smaller networks from trained ones: whole channels taken out, or single weights set to zero.

Channels go by the size of the scale that a batch norm gives them (Liu et al. 2017, "Learning Efficient Convolutional
Networks through Network Slimming", arXiv 1708.06519, here without its penalty on the scales), single weights by their
own size (Han et al. 2015, arXiv 1506.02626). Both want some steps of training afterwards.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from core.errors import UserError
from projects.cifar10.networks.densenet import DenseLayer
from projects.cifar10.networks.fast import FastNet
from projects.cifar10.networks.resnet import BottleneckBlock, ResidualBlock
from projects.cifar10.networks.vgg import Vgg11

Link = tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d | nn.Linear]


def without_channels(network: nn.Module, share: float) -> nn.Module:
    """A copy of the network in which each convolution that can lose channels has lost this share of them.

    Of every such convolution the channels with the smallest norm scales go, with what reads them; one channel stays at
    least. Raises UserError for a network without norms.
    """
    network = copy.deepcopy(network)
    num = 0
    for conv, norm, reader in _links(network):
        kept = max(1, round((1 - share) * conv.out_channels))
        rows = norm.weight.detach().abs().topk(kept).indices.sort().values
        _keep(conv, norm, reader, rows)
        num += 1
    if num == 0:
        what = "the network has no norms that say which channels count"
        raise UserError(what, type(network).__name__, "take fast, vgg11, a resnet or densenet")
    return network


def mask(network: nn.Module, share: float) -> None:
    """Sets this share of each filter's and matrix's weights to zero, the smallest ones, and holds them there.

    In place; `unmask` ends the holding and leaves the zeros. What is not trained and the last layer stay as they are.
    """
    network.to(memory_format=torch.contiguous_format)  # what torch's pruning can view
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers[:-1]:
        if layer.weight.requires_grad:
            prune.l1_unstructured(layer, "weight", amount=share)


def unmask(network: nn.Module) -> None:
    """Makes the zeros of `mask` ordinary weights."""
    for module in network.modules():
        if hasattr(module, "weight_mask"):
            prune.remove(module, "weight")


def _links(network: nn.Module) -> Iterator[Link]:
    """Yields convolutions with their norm and the one layer that reads their channels."""
    if isinstance(network, FastNet):
        pairs = [(conv, norm) for s in network.stages for conv, norm in ((s.conv1, s.norm1), (s.conv2, s.norm2))]
        yield from _chain(pairs, network.head)
    elif isinstance(network, Vgg11):
        yield from _chain([pair for pair in pairwise(network.features) if isinstance(pair[0], nn.Conv2d)], network.head)
    for block in network.modules():  # of residual and dense blocks the inner channels, which nothing else reads
        if isinstance(block, ResidualBlock | BottleneckBlock):
            yield block.conv1, block.norm1, block.conv2
        if isinstance(block, BottleneckBlock):
            yield block.conv2, block.norm2, block.conv3
        if isinstance(block, DenseLayer):
            yield block.conv1, block.norm2, block.conv2


def _chain(pairs: Sequence[tuple[Any, Any]], head: nn.Linear) -> Iterator[Link]:
    """Yields the links of convolutions that follow each other."""
    for (conv, norm), reader in zip(pairs, [*(conv for conv, _ in pairs[1:]), head], strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(reader, nn.Conv2d | nn.Linear)
        yield conv, norm, reader


def _keep(conv: nn.Conv2d, norm: nn.BatchNorm2d, reader: nn.Conv2d | nn.Linear, rows: Tensor) -> None:
    """Leaves a convolution the channels `rows`, its norm theirs, and the layer behind them what reads these."""
    conv.weight = _part(conv.weight, 0, rows)
    conv.bias = None if conv.bias is None else _part(conv.bias, 0, rows)
    norm.weight, norm.bias = _part(norm.weight, 0, rows), _part(norm.bias, 0, rows)
    for name in ("running_mean", "running_var"):
        setattr(norm, name, getattr(norm, name)[rows].clone())
    reader.weight = _part(reader.weight, 1, rows)
    conv.out_channels = norm.num_features = len(rows)
    if isinstance(reader, nn.Conv2d):
        reader.in_channels = len(rows)
    else:
        reader.in_features = len(rows)


def _part(weight: Tensor, dimension: int, rows: Tensor) -> nn.Parameter:
    """Some rows of a parameter as a parameter."""
    with torch.no_grad():
        return nn.Parameter(weight.index_select(dimension, rows).clone(), weight.requires_grad)
