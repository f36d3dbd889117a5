"""Augmented pictures equal a loop over pixels, bit for bit, with and without compiled kernels, for every choice."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cuda_ext import augment, normalize, reference
from tests.cuda_ext.cases import STATES, augment_case, enter


@pytest.fixture(params=STATES, autouse=True)
def _state(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(request.param, monkeypatch)


def mirrored(position: int, size: int) -> int:
    """A position brought back into [0, size) by mirrors on the first and the last pixel."""
    period = list(range(size)) + list(range(size - 2, 0, -1))
    return period[position % len(period)]


def slow_augment(
    images: Tensor, indices: Tensor, params: Tensor, table: Tensor, padding: int, cutout: int
) -> np.ndarray:
    """One pixel after the other: the whole picture bordered, cropped, then flipped, then cut out."""
    height, width, channels = images.shape[1:]
    pixels, values = images.numpy(), table.double().numpy()
    result = np.zeros((len(indices), channels, height, width))
    for n, (index, (top, left, flip, cut_row, cut_column)) in enumerate(
        zip(indices.tolist(), params.tolist(), strict=True)
    ):
        crop = np.zeros((height, width, channels), dtype=np.int64)
        for row in range(height):
            for column in range(width):
                y, x = mirrored(row + top - padding, height), mirrored(column + left - padding, width)
                crop[row, column] = pixels[index, y, x]
        crop = crop[:, ::-1] if flip else crop
        for row in range(height):
            for column in range(width):
                above, before = cut_row - cutout // 2, cut_column - cutout // 2
                hidden = above <= row < above + cutout and before <= column < before + cutout
                for channel in range(channels):
                    result[n, channel, row, column] = 0 if hidden else values[channel, crop[row, column, channel]]
    return result


SIZES = [(8, 8, 3, 2), (5, 7, 3, 4), (7, 5, 1, 3), (9, 4, 4, 0), (3, 11, 3, 2), (2, 2, 3, 1), (4, 3, 6, 1)]


@pytest.mark.parametrize(("height", "width", "channels", "padding"), SIZES)
@pytest.mark.parametrize("cutout", [0, 1, 2, 3, 20])
def test_augment_equals_a_loop_over_pixels(height: int, width: int, channels: int, padding: int, cutout: int) -> None:
    arguments = augment_case(6, height, width, channels, padding, torch.float64)
    found = augment(*arguments, padding, cutout)
    assert found.dtype == torch.float64
    assert np.array_equal(found.numpy(), slow_augment(*arguments, padding, cutout))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_table_decides_the_dtype(dtype: torch.dtype) -> None:
    arguments = augment_case(3, 5, 6, 3, 2, dtype)
    found = augment(*arguments, 2, 3)
    assert found.dtype == normalize(arguments[0], arguments[3]).dtype == dtype
    assert np.array_equal(found.double().numpy(), slow_augment(*arguments, 2, 3))


@pytest.mark.parametrize("num", [0, 1, 5])
def test_the_result_is_channels_last_for_any_number_of_pictures(num: int) -> None:
    images, indices, params, table = augment_case(num, 5, 6, 3, 2, torch.float32)
    for found in (augment(images, indices, params, table, 2, 3), normalize(images[indices], table)):
        assert found.shape == (num, 3, 5, 6)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_without_movement_augment_is_normalize() -> None:
    images, indices, params, table = augment_case(4, 6, 5, 3, 2, torch.float32)
    params[:] = torch.tensor([2, 2, 0, 0, 0])
    assert torch.equal(augment(images, indices, params, table, 2, 0), normalize(images[indices], table))


def test_the_arguments_stay_as_they_are() -> None:
    arguments = augment_case(4, 6, 5, 3, 2, torch.float32)
    copies = [argument.clone() for argument in arguments]
    augment(*arguments, 2, 3)
    assert all(torch.equal(argument, copy) for argument, copy in zip(arguments, copies, strict=True))


def test_views_of_choices_and_tables_are_taken() -> None:
    images, indices, params, table = augment_case(6, 5, 6, 3, 2, torch.float32)
    expected = augment(images, indices, params, table, 2, 3)
    spread = torch.stack([indices, indices], 1)[:, 0]
    found = augment(images[:], spread, params.t().contiguous().t(), table.t().contiguous().t(), 2, 3)
    assert torch.equal(found, expected)


def test_pictures_beyond_two_gigabytes_are_found() -> None:
    num, shape = 2**31 // 3072 + 4, (32, 32, 3)
    images = torch.empty((num, *shape), dtype=torch.uint8)  # only pages that are written take memory
    images[-4:] = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    _, _, params, table = augment_case(4, *shape, 4, torch.float32)
    found = augment(images, torch.arange(num - 4, num), params, table, 4, 8)
    assert torch.equal(found, reference.augment(images[-4:], torch.arange(4), params, table, 4, 8))


IMAGES, INDICES, PARAMS, TABLE = augment_case(2, 4, 6, 3, 1, torch.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": IMAGES.int()}, r"images: int32 \[4, 4, 6, 3\]; must be uint8 \[M, H, W, C\], contiguous"),
        ({"images": IMAGES.permute(0, 3, 1, 2)}, r"images: .* with strides .*; must be uint8 \[M, H, W, C\]"),
        ({"images": IMAGES[0]}, "images: .* must be uint8"),
        ({"images": IMAGES[:, :0]}, "images: .* must be uint8"),
        ({"images": torch.empty((0, 2**15, 2**15, 1), dtype=torch.uint8)}, r"images: .* less than 2\^30 numbers"),
        ({"indices": INDICES.int()}, r"indices: int32 \[2\]; must be int64 \[N\]"),
        ({"indices": INDICES[:, None]}, "indices: .* must be int64"),
        ({"indices": INDICES * 0 + 4}, "indices: 4; must be from 0 to 3"),
        ({"indices": INDICES * 0 - 1}, "indices: -1; must be from 0 to 3"),
        ({"params": PARAMS[:1]}, r"params: int64 \[1, 5\]; must be int64 \[2, 5\], a row for each index"),
        ({"params": PARAMS.double()}, "params: float64"),
        ({"params": PARAMS - 1}, "params, row of the crop: -1; must be from 0 to 2"),
        ({"params": PARAMS + torch.tensor([0, 1, 0, 0, 0])}, "params, column of the crop: 3"),
        ({"params": PARAMS + torch.tensor([0, 0, 1, 0, 0])}, "params, flip: 2; must be from 0 to 1"),
        ({"params": PARAMS + torch.tensor([0, 0, 0, 1, 0])}, "params, row of the cutout: 4; must be from 0 to 3"),
        ({"params": PARAMS + torch.tensor([0, 0, 0, 0, 1])}, "params, column of the cutout: 6; must be from 0 to 5"),
        ({"table": TABLE[:2]}, r"table: float32 \[2, 256\]; must be floating point \[3, 256\]"),
        ({"table": TABLE.int()}, "table: int32"),
        ({"table": TABLE.clone().requires_grad_()}, "table: requires a gradient; augment has no derivative"),
        ({"table": TABLE.to("meta")}, "table: on meta; must be on cpu"),
        ({"padding": 4}, "padding: 4; must be from 0 to 3, below height and width"),
        ({"padding": -1}, "padding: -1; must be from 0 to 3"),
        ({"cutout": -1}, "cutout: -1; must be from 0"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(changed: dict[str, object], message: str) -> None:
    arguments = {"images": IMAGES, "indices": INDICES, "params": PARAMS, "table": TABLE, "padding": 1, "cutout": 2}
    augment(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        augment(**{**arguments, **changed})  # type: ignore[arg-type]


def test_a_compiled_graph_that_looked_at_no_value_stops_at_an_index_out_of_range() -> None:
    with pytest.raises((RuntimeError, IndexError), match=r"out of (range|bounds)"):
        torch.ops.atelier.augment(IMAGES, INDICES * 0 + 4, PARAMS, TABLE, 1, 2)


def test_normalize_looks_up_every_byte_of_every_channel() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    table = torch.randn(3, 256)
    assert torch.equal(normalize(images, table), table.view(1, 3, 16, 16))
