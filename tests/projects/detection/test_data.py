"""A folder's pictures arrive with their boxes, in both ways of holding them alike, however many workers load them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.accelerator import Accelerator
from core.errors import UserError
from projects.detection.config import Config
from projects.detection.data import (
    Batch,
    EvaluationLoader,
    TrainingLoader,
    canvas_of,
    load_data,
    reduced,
)
from projects.detection.train import parse_arguments, train
from tests.projects.detection.conftest import CLASSES, MakeFolder, draw

TINY = ["--image-size", 64, "--batch-size", 4, "--epochs", 4, "--seed", 3, "--precision", "fp32", "--device", "cpu"]
TINY += ["--mosaic", 0.5, "--mosaic-until", 0.5, "--zoom", 1.5, "--flip-vertical"]


def settings(folder: Path, *more: object) -> Config:
    return parse_arguments([str(value) for value in ("--data", folder, *TINY, *more)]).config


def accelerator() -> Accelerator:
    return Accelerator(device="cpu", precision="fp32")


def batches(config: Config, epoch: int, start: int = 0) -> list[Batch]:
    return list(TrainingLoader(load_data(config), config, accelerator()).batches(epoch, start))


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for (images, targets), (other_images, other_targets) in zip(a, b, strict=True):
        assert torch.equal(images, other_images)
        for one, other in zip(targets, other_targets, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in ("boxes", "labels", "uncounted"))


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_train_val_and_test_are_found(form: str, make_voc: MakeFolder, make_coco: MakeFolder) -> None:
    data = load_data(settings((make_voc if form == "voc" else make_coco)(train=8, val=3, test=2)))
    assert list(data.classes) == list(CLASSES)
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (8, 3, 2)
    assert data.canvas[0] % 32 == data.canvas[1] % 32 == 0
    assert any("8 pictures" in note for note in data.notes)


def test_without_val_a_share_is_held_out_and_no_picture_is_in_both(make_voc: MakeFolder) -> None:
    data = load_data(settings(make_voc(unsplit=20), "--val-fraction", 0.2))
    assert (len(data.train), len(data.val), data.test) == (16, 4, None)
    names = {picture.path.name for split in (data.train, data.val) for picture in split.pictures}
    assert len(names) == 20


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_batches_are_bit_for_bit_the_resident_ones(make_voc: MakeFolder, workers: int) -> None:
    folder = make_voc(train=10, val=2)
    for epoch in (0, 3):  # with mosaics and without
        resident = batches(settings(folder, "--resident", "yes"), epoch)
        streamed = batches(settings(folder, "--resident", "no", "--workers", workers), epoch)
        assert len(resident) == 2
        assert resident[0][0].shape == (4, 3, 64, 64)
        assert_equal(resident, streamed)


def test_every_epoch_and_seed_is_another_one_and_can_begin_at_any_batch(make_coco: MakeFolder) -> None:
    folder = make_coco(train=10, val=2)
    first = batches(settings(folder), epoch=0)
    assert not torch.equal(first[0][0], batches(settings(folder), epoch=1)[0][0])
    assert not torch.equal(first[0][0], batches(settings(folder, "--seed", 4), epoch=0)[0][0])
    assert_equal(batches(settings(folder), epoch=0, start=1), first[1:])


def test_repeats_make_an_epoch_longer_with_pictures_moved_each_time(make_coco: MakeFolder) -> None:
    config = settings(make_coco(train=4, val=2), "--repeats", 3, "--mosaic", 0)
    loader = TrainingLoader(load_data(config), config, accelerator())
    assert len(loader) == 3
    images = torch.cat([images for images, _ in loader.batches(0)])
    assert len({image.numpy().tobytes() for image in images}) == 12


def test_the_last_epochs_have_no_mosaics(make_coco: MakeFolder) -> None:
    config = settings(make_coco(train=8, val=2), "--mosaic", 1, "--zoom", 1, "--color", 0)
    loader = TrainingLoader(load_data(config), config, accelerator())
    early, late = (max(len(t["boxes"]) for _, targets in loader.batches(epoch) for t in targets) for epoch in (1, 2))
    assert late <= 2 < early


def test_evaluation_shows_every_picture_once_in_order_and_whole(make_coco: MakeFolder) -> None:
    config = settings(make_coco(train=8, val=11))
    data = load_data(config)
    loader = EvaluationLoader(data.val, data, config, accelerator())
    shown = list(loader.batches())
    assert [row for _, rows in shown for row in rows] == list(range(11))
    assert [len(images) for images, _ in shown] == [8, 3]
    sample, _ = loader.source.load(2, np.random.default_rng(0))
    picture = data.val.pictures[2]
    assert sample.boxes.shape == picture.boxes.shape
    drawn = draw(11)
    scale = sample.boxes[0] / picture.boxes[0].clip(1e-6)
    assert picture.boxes.tolist() == [list(box) for box in drawn.boxes]
    assert np.allclose(scale[picture.boxes[0] > 0], scale.max(), rtol=0.05)


def test_the_canvas_has_the_pictures_proportions_in_multiples_of_32(make_coco: MakeFolder) -> None:
    pictures = load_data(settings(make_coco(train=6, val=2))).train.pictures
    assert canvas_of(pictures, 64) == (64, 64)
    flat = [type(picture)(**{**vars(picture), "width": 640, "height": 480}) for picture in pictures]
    assert canvas_of(flat, 320) == (256, 320)
    assert canvas_of([type(p)(**{**vars(p), "width": 480, "height": 640}) for p in flat], 320) == (320, 256)
    assert canvas_of([type(p)(**{**vars(p), "width": 5000, "height": 10}) for p in flat], 320) == (32, 320)


def test_large_pictures_are_held_as_small_as_training_can_use_them() -> None:
    pixels = np.zeros((600, 800, 3), np.uint8)
    assert reduced(pixels, (90, 120)).shape == (90, 120, 3)
    assert reduced(pixels, (900, 900)) is pixels


@pytest.mark.parametrize("resident", ["yes", "no"])
def test_a_broken_picture_is_named(make_voc: MakeFolder, resident: str, tmp_path: Path) -> None:
    folder = make_voc(train=8, val=2)
    broken = folder / "JPEGImages" / "p003.jpg"
    broken.write_bytes(broken.read_bytes()[:-300])  # its size can still be read
    argv = ["--data", folder, *TINY, "--resident", resident, "--run-dir", tmp_path / "run"]
    with pytest.raises(UserError, match=r"not a readable picture: .*p003\.jpg") as caught:
        train(parse_arguments([str(value) for value in argv]))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_faults_that_are_to_be_skipped_are_said(make_voc: MakeFolder) -> None:
    folder = make_voc(train=8, val=2)
    (folder / "JPEGImages" / "p003.jpg").unlink()
    with pytest.raises(UserError, match="p003"):
        load_data(settings(folder))
    data = load_data(settings(folder, "--on-fault", "skip"))
    assert len(data.train) == 7
    assert any(note.startswith("left out: ") and "p003" in note for note in data.notes)


def test_without_a_box_to_validate_on_it_is_said(make_voc: MakeFolder) -> None:
    folder = make_voc(train=8, val=1)
    file = folder / "Annotations" / "p009.xml"
    text = file.read_text()
    file.write_text(text[: text.index("<object>")] + "</annotation>")
    with pytest.raises(UserError, match=r"no boxes to validate on: .* \(1 pictures\)"):
        load_data(settings(folder))


def test_real_blood_cells_are_read_without_a_fault(real_data: Path) -> None:
    data = load_data(settings(real_data / "bccd"))
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (205, 87, 72)
    assert list(data.classes) == ["Platelets", "RBC", "WBC"]
    assert data.canvas == (64, 64)
