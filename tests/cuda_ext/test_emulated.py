"""The bodies of the CUDA kernels, run on the CPU, equal the plain operations: odd sizes, small blocks, both widths."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cuda_ext import kernel_library, reference
from tests.cuda_ext.cases import augment_case, crop_case, focal_case, norm_case, plain_crop, pool_case

SOURCES = [Path(__file__).parent / name for name in ("emulated.cpp", "emulated_pool.cpp", "emulated_resize.cpp")]
CODES = {torch.float32: 6, torch.float16: 5, torch.bfloat16: 15}  # torch/headeronly/core/ScalarType.h
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels as a library of plain functions."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    target = tmp_path_factory.mktemp("emulated") / "emulated.so"
    includes = ["-isystem", str(Path(torch.__file__).parent / "include"), "-I", str(kernel_library.CSRC)]
    flags = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-pthread"]
    subprocess.run(["g++", *flags, *includes, *map(str, SOURCES), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("size", "wide", "staged", "parts"),
    [
        ((8, 6, 3), True, True, 1),
        ((8, 4, 4), True, False, 3),
        ((5, 7, 3), False, False, 2),
        ((4, 8, 1), True, True, 1),
        ((2, 2, 8), True, False, 1),
    ],
)
def test_augment(
    kernels: ctypes.CDLL, size: tuple[int, int, int], wide: bool, staged: bool, parts: int, dtype: torch.dtype
) -> None:
    images, indices, params, table = augment_case(7, *size, 1, dtype)
    for first, cutout in ((0, 3), (1, 0), (2, 99)):  # from the first picture on, then from ones that begin anywhere
        some = images[first:]
        rows = indices % len(some)
        expected = reference.augment(some, rows, params, table, 1, cutout)
        found = torch.full_like(expected, torch.nan)
        kernels.emulated_augment(
            *(pointer(tensor) for tensor in (some, rows, params, table, found)),
            ctypes.c_int64(len(some)),
            len(rows),
            *size,
            1,
            ctypes.c_int64(cutout),
            table.itemsize,
            wide,
            staged,
            13,
            parts,
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "classes", "wide", "blocks", "threads"),
    [(50, 8, True, 3, 7), (9, 48, True, 2, 32), (31, 5, False, 2, 16), (3, 1, False, 4, 9), (1, 40, True, 1, 1)],
)
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1.0, 0.0), (0.7, 0.5)])
def test_focal(
    kernels: ctypes.CDLL,
    rows: int,
    classes: int,
    wide: bool,
    blocks: int,
    threads: int,
    alpha: float,
    gamma: float,
    dtype: torch.dtype,
) -> None:
    logits, labels = focal_case(rows, classes, dtype)
    grad, loss, grad_logits = torch.tensor(1.5), torch.tensor(torch.nan), torch.full_like(logits, torch.nan)
    kernels.emulated_focal(
        CODES[dtype],
        wide,
        pointer(logits),
        pointer(labels),
        ctypes.c_int64(rows),
        classes,
        ctypes.c_double(alpha),
        ctypes.c_double(gamma),
        *(pointer(tensor) for tensor in (grad, loss, grad_logits)),
        blocks,
        threads,
    )
    expected = reference.sigmoid_focal_loss(logits.double(), labels, alpha, gamma)
    slope = reference.sigmoid_focal_loss_backward(grad.double(), logits.double(), labels, alpha, gamma)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(grad_logits.double(), slope, rtol=TOLERANCE[dtype], atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("shape", "wide", "threads", "blocks"),
    [
        ((2, 16, 8, 9), True, 7, 11),  # threads that are left over
        ((3, 24, 4, 6), True, 32, 1000),  # as many chunks as there may be
        ((1, 48, 4, 4), True, 4, 3),  # channels for more than one block
        ((2, 5, 7, 3), False, 16, 7),
        ((1, 1, 3, 2), False, 5, 9),
    ],
)
@pytest.mark.parametrize("parameters", ["none", "shared", "per sample"])
def test_instance_norm(
    kernels: ctypes.CDLL,
    shape: tuple[int, int, int, int],
    wide: bool,
    threads: int,
    blocks: int,
    channels_last: bool,
    parameters: str,
    dtype: torch.dtype,
) -> None:
    x, weight, bias, residual, grad = norm_case(shape, parameters, dtype, channels_last)
    for relu, added in ((True, None), (False, residual), (True, residual)):
        found = [torch.full_like(x, torch.nan) for _ in range(3)]  # y and the gradients of x and residual
        mean, rstd = torch.full(shape[:2], torch.nan), torch.full(shape[:2], torch.nan)
        sums = torch.full((shape[0], 2, shape[1]), torch.nan)
        kernels.emulated_norm(
            CODES[dtype],
            wide,
            channels_last,
            *(pointer(tensor) for tensor in (x, weight, bias, added, grad, found[0], mean, rstd, *found[1:], sums)),
            *(ctypes.c_int64(number) for number in (shape[0], shape[1], shape[2] * shape[3])),
            parameters == "per sample",
            relu,
            ctypes.c_double(1e-5),
            threads,
            ctypes.c_int64(blocks),
        )
        wider: tuple[Any, ...] = tuple(
            None if tensor is None else tensor.double() for tensor in (x, weight, bias, added)
        )
        expected = reference.instance_norm_act(wider[0], wider[1], wider[2], wider[3], relu, 1e-5)
        back = reference.instance_norm_act_backward(
            grad.double(), wider[0], expected[1], expected[2], wider[1], wider[2], wider[3], relu
        )
        close: dict[str, Any] = {"rtol": 2 * TOLERANCE[dtype], "atol": max(1e-5, 2 * TOLERANCE[dtype])}
        torch.testing.assert_close(found[0].double(), expected[0], **close)
        torch.testing.assert_close(mean.double(), expected[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rstd.double(), expected[2], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[1].double(), back[0], **close)
        torch.testing.assert_close(sums.double(), back[2], rtol=1e-4, atol=1e-4)
        if relu and added is not None:
            torch.testing.assert_close(found[2].double(), back[1], **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "wide", "threads", "blocks"),
    [
        ((2, 16, 6, 9), True, 7, 5),  # threads that are left over, a column behind the last window
        ((3, 24, 5, 4), True, 32, 1000),  # as many chunks as there may be, a row behind
        ((1, 48, 4, 4), True, 4, 3),  # channels for more than one block
        ((2, 5, 7, 3), False, 16, 7),
        ((1, 1, 4, 2), False, 5, 9),
    ],
)
@pytest.mark.parametrize(
    ("pool", "gelu", "training"),
    [(True, True, True), (True, False, True), (True, True, False), (False, True, True), (False, True, False)],
)
def test_pool_norm(
    kernels: ctypes.CDLL,
    shape: tuple[int, int, int, int],
    wide: bool,
    threads: int,
    blocks: int,
    pool: bool,
    gelu: bool,
    training: bool,
    dtype: torch.dtype,
) -> None:
    x, weight, bias, grad = pool_case(shape, dtype, pool)
    average, variance = bias / 2, bias.square() + 1
    y, pooled = torch.full_like(grad, torch.nan), torch.full_like(grad, torch.nan)
    codes = torch.full((grad[:, 0].numel() * ((shape[1] + 3) // 4),), 255, dtype=torch.uint8)
    statistics, sums = torch.full((3, shape[1]), torch.nan), torch.full((2, shape[1]), torch.nan)
    grad_x = torch.full_like(x, torch.nan)
    parts = (x, weight, bias, average, variance, grad, y, pooled, codes, statistics, grad_x, sums)
    kernels.emulated_pool(
        CODES[dtype],
        *(wide, pool, gelu, training),
        *(pointer(tensor) for tensor in parts),
        *(ctypes.c_int64(number) for number in shape),
        ctypes.c_double(1e-5),
        threads,
        ctypes.c_int64(blocks),
    )
    wider = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    averages = [average.double(), variance.double()]
    expected = reference.pool_norm_act(
        *(wider[0], wider[1], wider[2], averages[0], averages[1]), training, 1.0, 1e-5, gelu, pool
    )
    slopes = torch.autograd.grad(expected, wider, grad.double())
    close: dict[str, Any] = {"rtol": 2 * TOLERANCE[dtype], "atol": max(1e-5, 2 * TOLERANCE[dtype])}
    torch.testing.assert_close(y.double(), expected.detach(), **close)
    torch.testing.assert_close(grad_x.double(), slopes[0], **close)
    torch.testing.assert_close(sums.double(), torch.stack([slopes[2], slopes[1]]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(statistics[0].double(), averages[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(statistics[2].double(), averages[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "threads"), [((5, 7), 32), ((9, 70), 64), ((1, 33), 96)])
@pytest.mark.parametrize("chooses", [True, False])
def test_resize(kernels: ctypes.CDLL, size: tuple[int, int], threads: int, chooses: bool) -> None:
    (*inputs, table), choices = crop_case(torch.float32)
    flips, colors, erased = choices if chooses else (None, None, None)
    expected = plain_crop([*inputs, table], size, (flips, colors, erased))
    found = torch.full_like(expected, torch.nan)
    kernels.emulated_resize(
        *(pointer(tensor) for tensor in (*inputs, flips, colors, erased, table.contiguous(), found)),
        *(ctypes.c_int64(number) for number in (len(inputs[0]), len(inputs[1]))),
        *(len(expected), *size, threads),
    )
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < 0.01
