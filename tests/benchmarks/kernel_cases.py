"""What the benchmark of cuda_ext's operations compares: each operation, the same in eager PyTorch, and their input.

Eager is what one writes without cuda_ext: the gather formula for images, F.instance_norm with F.relu, matrix products
that autograd differentiates, torchvision's focal loss with the targets of zeros and ones that it takes, F.max_pool2d,
F.batch_norm and F.gelu, F.interpolate with antialiasing an image at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cuda_ext import (
    augment,
    crop_resize,
    gram_matrix,
    instance_norm_act,
    lookup_table,
    pool_norm_act,
    reference,
    sigmoid_focal_loss,
)

PADDING, CUTOUT = 2, 8
Call = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same result, and the bytes that have to be read and written for it."""

    eager: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    arguments: Sequence[Any]
    num_bytes: int
    grad: Tensor | None = None  # of the result; None: forward only
    others: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)  # further ways, by name
    in_graph: bool = True  # whether a CUDA graph can hold the eager way

    def call(self, function: Callable[..., Tensor]) -> Call:
        """A call of one way, with its derivative."""

        def both_ways() -> object:
            result = function(*self.arguments)
            if self.grad is None:
                return result
            return torch.autograd.grad(result, [leaf for leaf in self.arguments if needs_grad(leaf)], self.grad)

        return both_ways


def needs_grad(argument: Any) -> bool:
    """Whether an argument is differentiated by."""
    return isinstance(argument, Tensor) and argument.requires_grad


def of_augment(num: int, size: int, dtype: torch.dtype, device: str) -> Comparison:
    """A batch of colored images out of a few thousand."""
    images = torch.randint(0, 256, (5_000, size, size, 3), dtype=torch.uint8)
    highs = (2 * PADDING + 1, 2 * PADDING + 1, 2, size, size)
    params = torch.stack([torch.randint(0, high, (num,)) for high in highs], 1)
    inputs = [images, torch.randint(0, 5_000, (num,)), params, torch.randn(3, 256).to(dtype)]
    arguments = [*(tensor.to(device) for tensor in inputs), PADDING, CUTOUT]
    return Comparison(reference.augment, augment, arguments, num * size * size * 3 * (1 + dtype.itemsize))


def of_norm(num: int, size: int, dtype: torch.dtype, device: str, layout: torch.memory_format) -> Comparison:
    """32 channels, as the first layer of a style network has them, of images of some size."""

    def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.relu(F.instance_norm(x, weight=weight.to(x.dtype), bias=bias.to(x.dtype)))

    x = torch.randn(num, 32, size, size, device=device).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weight, bias = (torch.randn(32, device=device, requires_grad=True) for _ in range(2))
    grad = torch.randn_like(x).detach()
    return Comparison(eager, instance_norm_act, [x, weight, bias], 8 * x.nbytes, grad)


def of_gram(num: int, size: int, dtype: torch.dtype, device: str) -> Comparison:
    """64 channels of feature maps, as the second layer of a VGG has them."""

    def eager(features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return flat @ flat.mT / features[0].numel()

    features = torch.randn(num, 64, size, size, device=device).to(dtype).requires_grad_()
    grad = torch.randn(num, 64, 64, device=device).to(dtype)
    return Comparison(eager, gram_matrix, [features], 3 * features.nbytes, grad)


def of_focal(rows: int, classes: int, dtype: torch.dtype, device: str) -> Comparison:
    """Logits of anchors, one in a hundred of which has a class."""
    from torchvision.ops import sigmoid_focal_loss as torchvision_loss

    def eager(logits: Tensor, labels: Tensor) -> Tensor:
        targets = torch.zeros_like(logits)
        targets[labels >= 0, labels[labels >= 0]] = 1
        result: Tensor = torchvision_loss(logits, targets, reduction="sum")
        return result

    logits = (torch.randn(rows, classes, device=device) - 4).to(dtype).requires_grad_()
    labels = torch.where(torch.rand(rows) < 0.01, torch.randint(0, classes, (rows,)), -1).to(device)
    grad = torch.tensor(1.0, device=device)
    return Comparison(eager, sigmoid_focal_loss, [logits, labels], 3 * logits.nbytes, grad, in_graph=False)


def of_pool_norm(num: int, channels: int, size: int, pool: bool, dtype: torch.dtype, device: str) -> Comparison:
    """A layer of a classifier of small images, in training."""

    def eager(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 2) if pool else x
        return F.gelu(F.batch_norm(pooled, mean, var, weight, bias, training=True))

    x = torch.randn(num, channels, size, size, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.rand(channels, device=device, requires_grad=True) for _ in range(2))
    mean, var = torch.zeros(channels, device=device), torch.ones(channels, device=device)
    arguments = [x.requires_grad_(), weight, bias, mean, var]
    ours = partial(pool_norm_act, training=True, pool=pool)
    y = ours(*arguments).detach()
    read_and_written = 2 * x.nbytes + (5 * y.nbytes if pool else 5 * x.nbytes)
    return Comparison(eager, ours, arguments, read_and_written, torch.randn_like(y))


def of_resize(num: int, side: int, dtype: torch.dtype, device: str) -> Comparison:
    """Random parts of photographs of 500×375 pixels, mirrored and normalized."""
    pixels = torch.randint(0, 256, (num, 375, 500, 3), dtype=torch.uint8)
    top, left = torch.randint(0, 150, (num,)), torch.randint(0, 200, (num,))
    boxes = torch.stack([left, top, left + 300, top + 225], 1)
    flips = torch.rand(num) < 0.5
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    shift, scale = (torch.tensor(values, device=device)[:, None, None] * 255 for values in (mean, std))
    known = list(zip(boxes.tolist(), flips.tolist(), strict=True))

    def eager(images: Tensor, *unused: Tensor) -> Tensor:
        results = []
        for image, ((left, top, right, bottom), flip) in zip(images.view(num, 375, 500, 3), known, strict=True):
            part = image[top:bottom, left:right].permute(2, 0, 1)[None]
            part = part.float() if device == "cuda" else part  # interpolate takes bytes on a CPU only
            resized = F.interpolate(part, (side, side), mode="bilinear", antialias=True)[0]
            results.append(((resized.flip(2) if flip else resized).float() - shift) / scale)
        return torch.stack(results).to(dtype)

    def pillow(images: Tensor, *unused: Tensor) -> Tensor:
        results = []
        for image, (box, flip) in zip(photographs, known, strict=True):
            resized = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
            resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else resized
            results.append((torch.from_numpy(np.array(resized)).permute(2, 0, 1) - shift) / scale)
        return torch.stack(results).to(dtype)

    def ours(
        images: Tensor, offsets: Tensor, sizes: Tensor, indices: Tensor, boxes: Tensor, table: Tensor, flips: Tensor
    ) -> Tensor:
        return crop_resize(images, offsets, sizes, indices, boxes, (side, side), table, flips=flips)

    photographs = [Image.fromarray(image.numpy()) for image in pixels] if device == "cpu" else []
    every = torch.arange(num)
    sizes = torch.tensor([[375, 500]]).expand(num, 2).contiguous()
    table = lookup_table(mean, std).to(dtype)
    inputs = [pixels.flatten(), every * 375 * 500 * 3, sizes, every, boxes.float(), table, flips]
    num_bytes = num * 3 * (300 * 225 + side * side * dtype.itemsize)
    others = {"Pillow, an image at a time": pillow} if device == "cpu" else {}
    return Comparison(eager, ours, [tensor.to(device) for tensor in inputs], num_bytes, others=others)
