"""Each random choice belongs to a image and an epoch, whatever batch it comes in; each kind does what it says."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cuda_ext import lookup_table
from projects.transfer.augment import (
    OPERATIONS,
    Preprocessing,
    color_jitter,
    mix,
    plain_view,
    rand_augment,
    random_boxes,
    training_view,
)
from projects.transfer.synthetic import TARGET_CLASSES, draw_images
from tests.projects.transfer.conftest import settings

PREPROCESSING = Preprocessing.of(16, 0.8, (0.3, 0.4, 0.5), (0.2, 0.25, 0.3))
KINDS = ["none", "light", "crop", "rand"]


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.from_numpy(draw_images(12, 0, PREPROCESSING.side, TARGET_CLASSES, "day")[0])


def view(pixels: Tensor, rows: list[int], epoch: int, *argv: object, samples: list[int] | None = None) -> Tensor:
    table = lookup_table(PREPROCESSING.mean, PREPROCESSING.std)
    numbers = torch.tensor(rows if samples is None else samples)
    return training_view(pixels, torch.tensor(rows), numbers, epoch, PREPROCESSING, table, settings(*argv))


def needs(kind: str) -> None:
    if kind == "rand":
        pytest.importorskip("torchvision")


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_has_the_size_of_the_network_and_is_normalized(kind: str, pixels: Tensor) -> None:
    needs(kind)
    images = view(pixels, list(range(12)), 0, "--augment", kind, "--jitter", 0)
    assert images.shape == (12, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESSING.mean, PREPROCESSING.std))
    back = images * std + mean
    assert -1e-5 <= float(back.min()) <= float(back.max()) <= 1 + 1e-5
    assert abs(float(back.mean()) - float(pixels.float().mean()) / 255) < 0.1


@pytest.mark.parametrize("kind", ["light", "crop", "rand"])
def test_an_images_view_does_not_depend_on_the_batch_but_on_sample_epoch_and_seed(kind: str, pixels: Tensor) -> None:
    needs(kind)
    flags = ["--augment", kind]
    together = view(pixels, [3, 7, 1, 9], 2, *flags)
    alone = torch.cat([view(pixels, [row], 2, *flags) for row in (3, 7, 1, 9)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    for other in (
        view(pixels, [3, 7, 1, 9], 3, *flags),
        view(pixels, [3, 7, 1, 9], 2, *flags, "--seed", 1),
        view(pixels, [3, 7, 1, 9], 2, *flags, samples=[15, 19, 13, 21]),
    ):
        assert all(not torch.equal(a, b) for a, b in zip(together, other, strict=True))


def test_without_augmentation_a_view_is_what_evaluation_sees(pixels: Tensor) -> None:
    table = lookup_table(PREPROCESSING.mean, PREPROCESSING.std)
    seen = view(pixels, [4, 2], 5, "--augment", "none")
    assert torch.equal(seen, plain_view(pixels[[4, 2]], PREPROCESSING, table))
    middle = pixels[[4, 2], 2:18, 2:18].permute(0, 3, 1, 2).float() / 255
    expected = (middle - torch.tensor(PREPROCESSING.mean)[:, None, None]) / torch.tensor(PREPROCESSING.std)[
        :, None, None
    ]
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-5)


def test_random_boxes_lie_inside_and_have_the_areas_asked_for() -> None:
    boxes = random_boxes(torch.rand(500, 4, generator=torch.Generator().manual_seed(0)), 64, smallest=0.25)
    assert float(boxes.min()) >= 0
    assert float(boxes.max()) <= 64
    area = ((boxes[:, 2:] - boxes[:, :2]) / 64).prod(1)
    assert 0.22 < float(area.min()) < 0.3
    assert 0.85 < float(area.max()) <= 1
    assert random_boxes(torch.full((1, 4), 0.5), 64, smallest=1.0).tolist() == [[0, 0, 64, 64]]


def test_half_of_the_parts_are_mirrored() -> None:
    side = PREPROCESSING.side
    ramp = torch.linspace(0, 255, side).to(torch.uint8)[None, None, :, None].expand(1, side, side, 3).contiguous()
    parts = view(ramp, [0] * 400, 0, "--augment", "crop", "--jitter", 0, samples=list(range(400)))
    mirrored = parts[:, 0, 0, 0] > parts[:, 0, 0, -1]
    assert 0.4 < float(mirrored.float().mean()) < 0.6


def test_jitter_multiplies_and_shifts_normalized_values() -> None:
    contrast, brightness = torch.tensor([1.2, 0.7]), torch.tensor([-0.1, 0.3])
    levels = torch.arange(256.0)
    for matrix, factor, shift in zip(
        color_jitter(contrast, brightness, PREPROCESSING), contrast, brightness, strict=True
    ):
        changed = matrix[:, :3] @ levels.expand(3, -1) + matrix[:, 3:]
        mean, std = (torch.tensor(values)[:, None] for values in (PREPROCESSING.mean, PREPROCESSING.std))
        wanted = lookup_table(PREPROCESSING.mean, PREPROCESSING.std) * factor + shift
        torch.testing.assert_close((changed / 255 - mean) / std, wanted, rtol=0, atol=1e-4)


def test_every_operation_keeps_shape_and_type_and_all_but_the_identity_change_something(pixels: Tensor) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = pixels.permute(0, 3, 1, 2).contiguous()
    for number, operation in enumerate(OPERATIONS):
        for strength in (-0.6, 0.6):
            done = operation(functional, images.clone(), strength)
            assert (done.shape, done.dtype) == (images.shape, torch.uint8)
            assert torch.equal(done, images) == (number == 0)


def test_rand_augment_gives_each_image_its_own_operation(pixels: Tensor) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = pixels[:3].permute(0, 3, 1, 2).contiguous()
    done = rand_augment(images.clone(), torch.tensor([[0, 0], [6, 1], [6, 0]]), 0.3)
    assert torch.equal(done[0], images[0])
    assert torch.equal(done[1:2], functional.adjust_brightness(images[1:2], 1.27))
    assert torch.equal(done[2:3], functional.adjust_brightness(images[2:3], 0.73))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 10, 10).contiguous()
    return images, torch.eye(4), torch.arange(4) + 8


def test_mixup_mixes_images_and_targets_in_the_same_share() -> None:
    images, targets, samples = batch()
    mixed, mixed_targets = mix(images, targets, samples, 0, settings("--mixup", 0.7))
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(4))
    expected = (mixed_targets @ torch.arange(4.0))[:, None, None, None].expand_as(mixed)
    torch.testing.assert_close(mixed, expected)
    assert 0 < float(mixed_targets.max()) < 1


def test_cutmix_replaces_a_rectangle_and_targets_tell_its_area() -> None:
    images, targets, samples = batch()
    areas = []
    for epoch in range(12):
        mixed, mixed_targets = mix(images, targets, samples, epoch, settings("--cutmix", 1))
        own = mixed == images
        torch.testing.assert_close(mixed_targets.diagonal(), own.float().mean((1, 2, 3)))
        foreign = ~own[0, 0]
        rows, columns = foreign.any(1), foreign.any(0)
        assert torch.equal(foreign, rows[:, None] & columns[None])
        assert torch.equal(mixed[1][~own[1]], torch.zeros(int((~own[1]).sum())))
        areas.append(float(foreign.float().mean()))
    assert min(areas) < 0.25 < max(areas)


def test_with_both_some_batches_are_mixed_in_one_way_and_some_in_the_other() -> None:
    images, targets, samples = batch()
    config = settings("--mixup", 1, "--cutmix", 1)
    is_cut = []
    for epoch in range(30):
        mixed, _ = mix(images, targets, samples, epoch, config)
        is_cut.append(bool(np.isin(mixed.numpy(), images.numpy()).all()))
    assert 5 < sum(is_cut) < 25
    again, _ = mix(images, targets, samples, 29, config)
    assert torch.equal(again, mixed)
    assert torch.equal(images, batch()[0]), "the batch that was given is left alone"
