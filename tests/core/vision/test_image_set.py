"""Resident and streamed sets give the same batches; splits keep every class; what is damaged or doubled is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from core.accelerator import Accelerator
from core.data import Order
from core.errors import UserError
from core.vision.folders import Listing, list_classes
from core.vision.image_set import (
    ImageSet,
    batches,
    from_listing,
    from_pixels,
    hold_out,
    hold_out_by_class,
    sha256_of,
    split_notes,
    statistics,
)

SIZE = 8


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """Two classes with five images of noise each."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 9, 12, 3), dtype=np.uint8)
    for row, image in enumerate(noise):
        folder = tmp_path / "ab"[row % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{row}.png")
    return list_classes(tmp_path)


def loaded(listing: Listing, resident: bool) -> ImageSet:
    """The images of a listing."""
    return from_listing(listing, SIZE, resident=resident)[0]


def drawn(labels: list[int], seed: int = 0) -> ImageSet:
    """A resident set of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 3), dtype=np.uint8)
    return from_pixels(pixels, np.asarray(labels, dtype=np.int64))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_bit_for_bit_the_resident_ones(listing: Listing, workers: int) -> None:
    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> tuple[Tensor, ...]:
        return pixels[rows].clone(), samples, labels, torch.tensor(epoch)

    accelerator = Accelerator(device="cpu", precision="fp32")
    order = Order(25, 5, seed=1)  # two draws and a half of each image
    both = [
        list(batches(loaded(listing, resident), order, make, accelerator, workers).batches(epoch=3))
        for resident in (True, False)
    ]
    assert len(both[0]) == len(both[1]) == 5
    for one, other in zip(*both, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    samples = torch.cat([samples for _, samples, _, _ in both[0]])
    assert sorted(samples.tolist()) == list(range(25))
    labels = torch.cat([labels for _, _, labels, _ in both[0]])
    assert np.array_equal(labels.numpy(), listing.labels[samples.numpy() % 10])


def test_both_kinds_load_the_same_pixels_and_know_them_by_the_same_hash(listing: Listing) -> None:
    resident, streamed = loaded(listing, True), loaded(listing, False)
    assert (streamed.pixels, len(streamed)) == (None, 10)
    assert np.array_equal(resident.load(range(10)), streamed.load(range(10)))
    assert statistics(resident) == statistics(streamed)
    some = np.array([3, 0, 7])
    assert np.array_equal(resident.take(some).load([0, 2]), streamed.take(some).load([0, 2]))
    assert resident.sha256 == streamed.sha256 == resident.take(some).sha256
    before = sha256_of({"train": resident}, ["a", "b"])
    content = listing.paths[4].read_bytes()
    listing.paths[4].write_bytes(listing.paths[5].read_bytes())  # another image under the old name
    assert sha256_of({"train": loaded(listing, False)}, ["a", "b"]) != before
    listing.paths[4].write_bytes(content)
    assert sha256_of({"train": loaded(listing, False)}, ["a", "b"]) == before
    assert sha256_of({"train": resident}, ["a", "c"]) != before


@pytest.mark.parametrize("resident", [True, False])
def test_broken_images_are_named_before_any_work_or_listed_and_left_out(listing: Listing, resident: bool) -> None:
    listing.paths[6].write_bytes(listing.paths[6].read_bytes()[:60])
    with pytest.raises(UserError, match=listing.paths[6].name):
        loaded(listing, resident)
    images, faults = from_listing(listing, SIZE, resident=resident, on_fault="skip")
    assert len(images) == 9
    assert len(faults) == 1
    assert str(listing.paths[6]) in faults[0]
    assert images.labels.tolist() == [0] * 5 + [1] * 4


@pytest.mark.parametrize("split", [hold_out, hold_out_by_class])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_a_share_is_held_out_by_the_seed_and_every_class_keeps_an_image(split: object, share: float) -> None:
    assert callable(split)
    images = drawn([0] * 20 + [1] * 9 + [2, 2] + [3])
    rest, held_out = split(images, share, 5)
    assert len(rest) + len(held_out) == len(images)
    assert not rest.count_copies(held_out)
    assert set(rest.labels.tolist()) == {0, 1, 2, 3}
    assert len(held_out) >= 1
    again, other = split(images, share, 5)[1], split(images, share, 6)[1]
    assert np.array_equal(again.digests, held_out.digests)
    assert not np.array_equal(other.digests, held_out.digests)
    if split is hold_out_by_class:
        assert np.bincount(held_out.labels).tolist()[:2] == [
            max(1, min(19, round(share * 20))),
            max(1, round(share * 9)),
        ]


def test_missing_classes_and_copies_between_splits_are_said() -> None:
    train = drawn([0, 1, 2, 2])
    val = train.take(np.array([0, 3]))
    notes = split_notes({"train": train, "val": val, "test": drawn([0, 1, 2], seed=1)}, ["ant", "bee", "cat"])
    assert len(notes) == 2
    assert any("val" in note and "bee" in note for note in notes)
    assert any("2 of 2" in note for note in notes)
    with pytest.raises(UserError, match="bee"):
        split_notes({"train": val}, ["ant", "bee", "cat"])
