"""The plain operations equal a loop over pixels, bit for bit, for every size and choice."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cuda_ext import augment, normalise


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


def case(num: int, height: int, width: int, channels: int, padding: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
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


SIZES = [(8, 8, 3, 2), (5, 7, 3, 4), (7, 5, 1, 3), (9, 4, 4, 0), (3, 11, 3, 2), (2, 2, 3, 1)]


@pytest.mark.parametrize(("height", "width", "channels", "padding"), SIZES)
@pytest.mark.parametrize("cutout", [0, 1, 2, 3, 20])
def test_augment_equals_a_loop_over_pixels(height: int, width: int, channels: int, padding: int, cutout: int) -> None:
    arguments = case(6, height, width, channels, padding, torch.float64)
    found = augment(*arguments, padding, cutout)
    assert found.dtype == torch.float64
    assert np.array_equal(found.numpy(), slow_augment(*arguments, padding, cutout))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_table_decides_the_dtype(dtype: torch.dtype) -> None:
    arguments = case(3, 5, 6, 3, 2, dtype)
    found = augment(*arguments, 2, 3)
    assert found.dtype == normalise(arguments[0], arguments[3]).dtype == dtype
    assert np.array_equal(found.double().numpy(), slow_augment(*arguments, 2, 3))


@pytest.mark.parametrize("num", [0, 1, 5])
def test_the_result_is_channels_last_for_any_number_of_pictures(num: int) -> None:
    images, indices, params, table = case(num, 5, 6, 3, 2, torch.float32)
    for found in (augment(images, indices, params, table, 2, 3), normalise(images[indices], table)):
        assert found.shape == (num, 3, 5, 6)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_without_movement_augment_is_normalise() -> None:
    images, indices, params, table = case(4, 6, 5, 3, 2, torch.float32)
    params[:] = torch.tensor([2, 2, 0, 0, 0])
    assert torch.equal(augment(images, indices, params, table, 2, 0), normalise(images[indices], table))


def test_normalise_looks_up_every_byte_of_every_channel() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    table = torch.randn(3, 256)
    assert torch.equal(normalise(images, table), table.view(1, 3, 16, 16))


def test_the_arguments_stay_as_they_are() -> None:
    arguments = case(4, 6, 5, 3, 2, torch.float32)
    copies = [argument.clone() for argument in arguments]
    augment(*arguments, 2, 3)
    assert all(torch.equal(argument, copy) for argument, copy in zip(arguments, copies, strict=True))
