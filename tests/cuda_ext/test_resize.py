"""Boxes of images, resized: Pillow's and torchvision's values within a level, and each choice by itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cuda_ext import color_matrices, crop_resize, lookup_table
from tests.cuda_ext.cases import STATES, crop, crop_case, enter, plain_crop


@pytest.fixture(params=STATES, autouse=True)
def _state(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(request.param, monkeypatch)


LEVELS = torch.arange(256.0).expand(3, 256)


def of_one(image: np.ndarray, box: tuple[float, ...], size: tuple[int, int]) -> Tensor:
    """A box of an image, resized, in levels: [height, width, 3]."""
    pixels, sizes = torch.from_numpy(image.copy()).flatten(), torch.tensor([image.shape[:2]])
    zero, boxes = torch.zeros(1, dtype=torch.int64), torch.tensor([box], dtype=torch.float32)
    return crop_resize(pixels, zero, sizes, zero, boxes, size, LEVELS)[0].permute(1, 2, 0)


@pytest.mark.parametrize(
    ("shape", "box", "size"),
    [
        ((75, 100), (0, 0, 100, 75), (45, 45)),
        ((60, 80), (10, 5, 50, 45), (64, 96)),  # larger
        ((300, 200), (20.25, 10.5, 180.75, 250.125), (31, 64)),
        ((700, 500), (0, 0, 500, 700), (5, 3)),  # hundreds of pixels for one
        ((40, 30), (4, 4, 5, 6), (10, 10)),  # two pixels for a hundred
        ((20, 20), (0, 0, 20, 20), (20, 20)),
    ],
)
def test_values_are_those_of_pillow_and_torchvision_within_a_level(
    shape: tuple[int, int], box: tuple[float, ...], size: tuple[int, int]
) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = of_one(image, box, size)
    left, top, right, bottom = (int(f(side)) for f, side in zip((np.floor,) * 2 + (np.ceil,) * 2, box, strict=True))
    part = Image.fromarray(image).crop((left, top, right, bottom))
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    expected = part.resize(size[::-1], Image.Resampling.BILINEAR, box=inner)
    assert (found - torch.from_numpy(np.array(expected)).float()).abs().max() <= 1
    if inner == (0, 0, *part.size):
        other = functional.resize(torch.from_numpy(np.array(part)).permute(2, 0, 1), list(size), antialias=True)
        assert (found - other.permute(1, 2, 0).float()).abs().max() <= 1
    if shape == size:
        assert torch.equal(found, torch.from_numpy(image).float())


def slow_crop(case: list[Tensor], choices: list[Tensor], size: tuple[int, int]) -> Tensor:
    """One number after the other, from the definition, in float64 and in levels that are not rounded."""
    pixels, offsets, sizes, indices, boxes, _ = (tensor.numpy() for tensor in case)
    flips, colors, erased = (tensor.numpy() for tensor in choices)
    result = np.zeros((len(indices), *size, 3))

    def weights(low: float, high: float, position: int, num: int, length: int) -> tuple[np.ndarray, bool]:
        step = (high - low) / num
        center, at = low + (position + 0.5) * step, np.arange(length)
        found = np.maximum(0, 1 - abs(at + 0.5 - center) / max(step, 1)) * (at >= np.floor(low)) * (at < np.ceil(high))
        return found / max(found.sum(), 1e-9), 0 <= center < length

    for n, index in enumerate(indices):
        high, wide = sizes[index]
        image = pixels[offsets[index] : offsets[index] + high * wide * 3].reshape(high, wide, 3).astype(float)
        left, top, right, bottom = boxes[n].astype(float)
        for y in range(size[0]):
            for x in range(size[1]):
                down, in_rows = weights(top, bottom, y, size[0], high)
                across, in_columns = weights(left, right, size[1] - 1 - x if flips[n] else x, size[1], wide)
                gone = erased[n][0] <= x < erased[n][2] and erased[n][1] <= y < erased[n][3]
                if in_rows and in_columns and not gone:
                    value = colors[n][:, :3] @ np.einsum("i,ijc,j->c", down, image, across) + colors[n][:, 3]
                    result[n, y, x] = np.clip(value, 0, 255)
    return torch.from_numpy(result).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(10, 12), (37, 3)])
def test_flips_colors_and_erased_boxes_follow_in_this_order(size: tuple[int, int]) -> None:
    case, choices = crop_case(torch.float64)
    found = crop(case, size, choices)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - slow_crop(case, choices, size)).abs().max() <= 0.6  # rounded, of 16-bit weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_table_decides_the_dtype_and_choices_that_change_nothing_change_nothing(dtype: torch.dtype) -> None:
    case, (flips, colors, _) = crop_case(dtype)
    table = lookup_table((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).to(dtype)
    plain = crop([*case[:5], table], (6, 9))
    assert plain.dtype == dtype
    same = torch.eye(3, 4).expand_as(colors)
    nothing = torch.zeros(len(flips), 4, dtype=torch.int64)
    again = crop([*case[:5], table], (6, 9), (~flips & flips, same, nothing))
    assert torch.equal(plain, again)
    mirrored = crop([*case[:5], table], (6, 9), (flips | ~flips, None, None))
    assert torch.equal(mirrored, plain.flip(3))
    levels = crop([*case[:5], LEVELS], (6, 9))
    outside = torch.zeros(7, 1, 6, 9, dtype=torch.bool)
    outside[3, :, 0], outside[3, :, -2:], outside[3, :, :, :2], outside[3, :, :, -2:] = True, True, True, True
    outside[6] = True
    assert not plain[outside.expand_as(plain)].any()
    looked_up = torch.stack([table[c][levels[:, c].long()] for c in range(3)], 1)
    assert torch.equal(plain, looked_up.masked_fill(outside, 0))


def test_views_are_taken_and_no_outputs_are_given_back_for_none() -> None:
    case, choices = crop_case(torch.float32)
    spread = [torch.stack([tensor, tensor], -1)[..., 0] for tensor in (*case, *choices)]
    assert torch.equal(crop(spread[:6], (5, 5), spread[6:]), crop(case, (5, 5), choices))
    none = crop([*case[:3], case[3][:0], case[4][:0], case[5]], (5, 4))
    assert none.shape == (0, 3, 5, 4)


def test_kernel_and_reference_round_alike_but_for_single_levels() -> None:
    case, choices = crop_case(torch.float32)
    found, expected = crop(case, (24, 30), choices), plain_crop(case, (24, 30), choices)
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < 0.02


def test_color_matrices_are_hue_saturation_contrast_and_brightness() -> None:
    ones, zeros = torch.ones(2), torch.zeros(2)
    rgb = torch.tensor([200.0, 50, 90, 1])

    def colored(**changed: float) -> list[float]:
        whole = {"brightness": ones, "contrast": ones, "saturation": ones, "hue": zeros}
        matrices = color_matrices(**{**whole, **{name: ones * value for name, value in changed.items()}})
        assert matrices.shape == (2, 3, 4)
        return [round(value, 3) for value in (matrices[1] @ rgb).tolist()]

    assert colored() == [200, 50, 90]
    assert colored(hue=1 / 3) == [90, 200, 50]
    assert colored(saturation=0) == [99.41] * 3
    assert colored(contrast=2, brightness=0.5) == [136.25, -13.75, 26.25]
    assert colored(hue=-1 / 3, saturation=2, contrast=0.5) == pytest.approx([68.46, 108.46, 218.46], abs=0.01)


CASE, CHOICES = crop_case(torch.float32)
NAMES = ("pixels", "offsets", "sizes", "indices", "boxes", "table")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pixels": CASE[0].int()}, r"pixels: int32 \[12000\]; must be uint8"),
        ({"pixels": CASE[0][:10_000]}, "offsets, end of the image: 10981; must be from 0 to 10000"),
        ({"offsets": CASE[1].int()}, r"offsets: int32 \[3\]; must be int64 \[3\]"),
        ({"offsets": CASE[1] - 6}, "offsets: -1; must be from 0"),
        ({"sizes": CASE[2][:2]}, r"sizes: int64 \[2, 2\]; must be int64 \[3, 2\]"),
        ({"sizes": CASE[2] * 0}, "sizes: 0; must be from 1"),
        ({"indices": CASE[3] + 1}, "indices: 3; must be from 0 to 2"),
        ({"boxes": CASE[4].double()}, "boxes: float64 .*; must be float32"),
        ({"boxes": CASE[4][:, [2, 1, 0, 3]]}, r"boxes: \[20.0, 0.0, 0.0, 33.0\]; must be left < right"),
        ({"boxes": CASE[4] * torch.nan}, r"boxes: \[nan, "),
        ({"table": CASE[5][:2]}, r"table: float32 \[2, 256\].*; must be float32 \[3, 256\]"),
        ({"table": CASE[5].int()}, "table: int32 .*; must be floating point"),
        ({"flips": CHOICES[0].long()}, r"flips: int64 \[7\]; must be bool \[7\]"),
        ({"colors": CHOICES[1].clone().requires_grad_()}, "table, boxes or colors: requires a gradient"),
        ({"erased": CHOICES[2].to("meta")}, "erased: on meta; must be on cpu, where pixels are"),
        ({"output_size": (0, 4)}, r"output_size: \(0, 4\); must be height and width from 1"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(changed: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {**dict(zip(NAMES, CASE, strict=True)), "output_size": (4, 5)}
    crop_resize(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        crop_resize(**{**arguments, **changed})  # type: ignore[arg-type]
