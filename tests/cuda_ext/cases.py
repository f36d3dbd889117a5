"""Inputs of the operations, and the states that these can be in: with compiled kernels, and without."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cuda_ext import build, register

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
