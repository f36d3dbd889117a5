"""The augmentations: gradients pass, each does what it says, and auto looks at how many images there are."""

import pytest
import torch
from torch import Tensor

from projects.gan.augment import differentiable_augment, parse_policy

POLICIES = [("color",), ("translation",), ("cutout",), ("color", "translation", "cutout")]


def images(num: int = 64, channels: int = 3, size: int = 16) -> Tensor:
    return 2 * torch.rand(num, channels, size, size, generator=torch.Generator().manual_seed(0)) - 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES, ids="-".join)
def test_gradients_flow_to_the_images_and_shape_and_type_stay(policy: tuple[str, ...], channels: int) -> None:
    torch.manual_seed(0)
    given = images(channels=channels).bfloat16().requires_grad_(True)
    seen = differentiable_augment(given, policy)
    assert (seen.shape, seen.dtype) == (given.shape, given.dtype)
    assert not torch.equal(seen, given)
    (gradient,) = torch.autograd.grad(seen.float().square().sum(), given)
    assert (gradient.abs().sum((1, 2, 3)) > 0).all()


def test_without_a_policy_images_stay_what_they_are() -> None:
    given = images()
    assert differentiable_augment(given, ()) is given


def test_a_translation_moves_each_image_by_its_own_whole_pixels_and_fills_with_0() -> None:
    torch.manual_seed(0)
    given = images(200)
    moves = set()
    for image, seen in zip(given, differentiable_augment(given, ("translation",)), strict=True):
        fitting = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                expected = torch.zeros_like(image)
                to = (slice(max(0, down), 16 + min(0, down)), slice(max(0, right), 16 + min(0, right)))
                source = (slice(max(0, -down), 16 + min(0, -down)), slice(max(0, -right), 16 + min(0, -right)))
                expected[:, to[0], to[1]] = image[:, source[0], source[1]]
                if torch.equal(expected, seen):
                    fitting.append((down, right))
        assert len(fitting) == 1
        moves.add(fitting[0])
    assert len(moves) == 25


def test_cutout_blanks_a_square_of_at_most_half_the_side_and_nothing_else() -> None:
    torch.manual_seed(0)
    given = images(200)
    seen = differentiable_augment(given, ("cutout",))
    blank = (seen == 0).all(1)
    assert torch.equal(seen[~blank[:, None].expand_as(seen)], given[~blank[:, None].expand_as(given)])
    heights, widths = blank.any(2).sum(1), blank.any(1).sum(1)
    assert torch.equal(heights * widths, blank.sum((1, 2)))
    assert int(heights.max()) in (7, 8)
    assert int(heights.min()) >= 3


def test_gray_images_stay_gray_under_color() -> None:
    torch.manual_seed(0)
    seen = differentiable_augment(images(channels=1).expand(-1, 3, -1, -1), ("color",))
    assert float((seen[:, 0] - seen[:, 2]).abs().max()) < 1e-6


def test_auto_augments_little_data_only() -> None:
    assert list(parse_policy("auto", 4_999)) == ["color", "translation", "cutout"]
    assert list(parse_policy("auto", 5_000)) == []
    assert list(parse_policy("none", 10)) == []
    assert list(parse_policy("translation,cutout", 50_000)) == ["translation", "cutout"]
