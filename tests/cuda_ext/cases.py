"""Inputs of the operations, and the states that these can be in: with compiled kernels, and without."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from cuda_ext import build, crop_resize, reference, register

STATES = ("plain", "compiled")
PLAIN = register.define("atelier_plain")  # the same operators, for which no library has kernels
Shape = tuple[int, int, int, int]


def enter(state: str, monkeypatch: pytest.MonkeyPatch, device: str = "cpu") -> None:
    """Puts the public operations into a state for one test; skips where a device has no compiled kernels."""
    if state == "plain":
        monkeypatch.setattr(torch.ops, "atelier", torch.ops.atelier_plain)
        monkeypatch.setattr(build, "_active", dict.fromkeys(build.DEVICES, False))
    elif not build.ensure(device):
        pytest.skip(str(build.status(device)))


def augment_case(
    num: int, height: int, width: int, channels: int, padding: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures, the chosen rows (some twice), random choices with all extremes among them, a table."""
    random = np.random.default_rng(height * 100 + width)
    images = torch.from_numpy(random.integers(0, 256, (4, height, width, channels), dtype=np.uint8))
    indices = torch.from_numpy(random.integers(0, 4, num))
    highs = [2 * padding + 1, 2 * padding + 1, 2, height, width]
    params = torch.from_numpy(random.integers(0, highs, (num, 5)))
    if num >= 2:
        params[0], params[1] = torch.zeros(5, dtype=torch.int64), torch.tensor(highs) - 1
    table = torch.from_numpy(random.normal(size=(channels, 256))).to(dtype)
    return images, indices, params, table


def focal_case(rows: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of all sizes, large ones and zero among them, and labels of all kinds."""
    generator = torch.Generator().manual_seed(rows * 100 + classes)
    logits = 4 * torch.randn(rows, classes, generator=generator)
    logits.view(-1)[::7] *= 5
    logits.view(-1)[::11] = 0
    return logits.to(dtype), torch.randint(-2, classes, (rows,), generator=generator)


def norm_case(
    shape: Shape, parameters: str, dtype: torch.dtype, channels_last: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
    """x away from 0, weight and bias ("none", "shared" or "per sample"), residual, and the result's gradient."""
    generator = torch.Generator().manual_seed(sum(shape))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, residual, grad = (
        (torch.randn(shape, generator=generator) + offset).to(dtype).contiguous(memory_format=layout)
        for offset in (3, 0, 0)
    )
    if parameters == "none":
        return x, None, None, residual, grad
    size = shape[:2] if parameters == "per sample" else shape[1:2]
    weight, bias = torch.randn(size, generator=generator), torch.randn(size, generator=generator)
    return x, weight, bias, residual, grad


def pool_case(shape: Shape, dtype: torch.dtype, pool: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x in channels_last with many equal numbers, weight, bias, and the result's gradient."""
    generator = torch.Generator().manual_seed(sum(shape))
    x = (torch.randint(-4, 9, shape, generator=generator) / 4).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(shape[1], generator=generator), torch.randn(shape[1], generator=generator)
    height, width = (size // 2 if pool else size for size in shape[2:])
    grad = torch.randn(*shape[:2], height, width, generator=generator).to(dtype)
    return x, weight, bias, grad.contiguous(memory_format=torch.channels_last)


def crop_case(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Noise of three sizes with bytes between, and outputs of it: pixels, offsets, sizes, indices, boxes and a table of
    the bytes' own values; then flips, colors and erased boxes."""
    random = np.random.default_rng(0)
    sizes = [(40, 61), (9, 7), (33, 20)]
    pixels = torch.from_numpy(random.integers(0, 256, 12_000, dtype=np.uint8))
    boxes = [
        (0, 0, 20, 33),
        (3.3, 2.7, 50.1, 31.9),
        (0, 0, 7, 9),
        (-20, -10, 81, 60),  # reaches out on all sides
        (1, 2, 3, 3),
        (59.5, 0.25, 60.75, 0.5),  # parts of pixels
        (7, -5, 12, -1),  # outside
    ]
    table = torch.arange(256).expand(3, 256).to(dtype)
    inputs = [
        pixels,
        torch.tensor([5, 8000, 9001]),
        torch.tensor(sizes),
        torch.tensor([2, 0, 1, 0, 1, 0, 1]),
        torch.tensor(boxes, dtype=torch.float32),
        table,
    ]
    num = len(boxes)
    colors = torch.from_numpy(random.normal(0, 0.2, (num, 3, 4)).astype(np.float32)) + torch.eye(3, 4)
    colors[:, :, 3] *= 40
    erased = torch.from_numpy(random.integers(-3, 12, (num, 4)))
    return inputs, [torch.arange(num) % 2 == 1, colors, erased]


def crop(
    inputs: Sequence[Tensor], size: tuple[int, int], choices: Sequence[Tensor | None] = (None, None, None)
) -> Tensor:
    """crop_resize of inputs as crop_case makes them."""
    pixels, offsets, sizes, indices, boxes, table = inputs
    flips, colors, erased = choices
    return crop_resize(pixels, offsets, sizes, indices, boxes, size, table, flips=flips, colors=colors, erased=erased)


def plain_crop(inputs: Sequence[Tensor], size: tuple[int, int], choices: Sequence[Tensor | None]) -> Tensor:
    """The reference's answer to the same."""
    pixels, offsets, sizes, indices, boxes, table = inputs
    flips, colors, erased = choices
    return reference.crop_resize(pixels, offsets, sizes, indices, boxes, flips, colors, erased, table, *size)
