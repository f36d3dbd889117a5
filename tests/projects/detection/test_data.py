"""A folder's images arrive with their boxes, held in memory or streamed alike, however many workers load them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.accelerator import Accelerator
from core.errors import UserError
from core.program import parse_training
from projects.detection.annotations import AnnotatedImage
from projects.detection.config import Config
from projects.detection.data import canvas_of, load_data
from projects.detection.loaders import Batch, EvaluationLoader, TrainingLoader, reduced
from tests.projects.detection.conftest import CLASSES, MakeFolder, draw, edit_coco, edit_voc

TINY = ["--image-size", 64, "--batch-size", 4, "--epochs", 4, "--seed", 3, "--precision", "fp32", "--device", "cpu"]
TINY += ["--mosaic", 0.5, "--mosaic-until", 0.5, "--zoom", 1.5, "--flip-vertical"]

FEW = ["--num-train", 4]


def settings(folder: Path, *more: object) -> Config:
    return parse_training(Config, [str(value) for value in ("--data", folder, *TINY, *more)]).config


def accelerator() -> Accelerator:
    return Accelerator(device="cpu", precision="fp32")


def batches(config: Config, epoch: int, start: int = 0) -> list[Batch]:
    return list(TrainingLoader(load_data(config), config, accelerator()).batches(epoch, start))


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for (images, targets), (other_images, other_targets) in zip(a, b, strict=True):
        assert torch.equal(images, other_images)
        assert all(map(torch.equal, targets, other_targets))


def test_without_val_a_share_is_held_out_and_no_image_is_in_both(make_voc: MakeFolder) -> None:
    data = load_data(settings(make_voc(unsplit=20), "--val-fraction", 0.2))
    assert (len(data.train), len(data.val), data.test) == (16, 4, None)
    names = {image.path.name for split in (data.train, data.val) for image in split.images}
    assert len(names) == 20


def test_fewer_training_images_are_drawn_by_the_seed_and_no_other_split_changes(make_voc: MakeFolder) -> None:
    folder = make_voc(train=10, val=2)
    whole, some, other = (load_data(settings(folder, *more)) for more in ([], FEW, [*FEW, "--seed", 4]))
    drawn = [{image.path.name for image in data.train.images} for data in (whole, some, other)]
    assert [len(names) for names in drawn] == [10, 4, 4]
    assert drawn[1] < drawn[0] > drawn[2] != drawn[1]
    assert [image.path for image in some.val.images] == [image.path for image in whole.val.images]
    assert some.sha256 == whole.sha256
    with pytest.raises(UserError, match="--num-train 11"):
        load_data(settings(folder, "--num-train", 11))


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


def test_repeats_make_an_epoch_longer_with_images_augmented_each_time(make_coco: MakeFolder) -> None:
    config = settings(make_coco(train=4, val=2), "--repeats", 3, "--mosaic", 0)
    loader = TrainingLoader(load_data(config), config, accelerator())
    assert len(loader) == 3
    images = torch.cat([images for images, _ in loader.batches(0)])
    assert len({image.numpy().tobytes() for image in images}) == 12


def test_the_last_epochs_have_no_mosaics(make_coco: MakeFolder) -> None:
    config = settings(make_coco(train=8, val=2), "--mosaic", 1, "--zoom", 1, "--color", 0)
    loader = TrainingLoader(load_data(config), config, accelerator())
    early, late = (
        max(int((targets.labels >= 0).sum(1).max()) for _, targets in loader.batches(epoch)) for epoch in (1, 2)
    )
    assert late <= 2 < early


def test_evaluation_shows_every_image_once_in_order_and_whole(make_coco: MakeFolder) -> None:
    config = settings(make_coco(train=8, val=11))
    data = load_data(config)
    loader = EvaluationLoader(data.val, data, config, accelerator())
    shown = list(loader.batches())
    assert [row for _, rows in shown for row in rows] == list(range(11))
    assert [len(images) for images, _ in shown] == [8, 3]
    sample, _, _ = loader.source.load(2, np.random.default_rng(0))
    image = data.val.images[2]
    assert image.boxes.tolist() == [list(box) for box in draw(11).boxes]
    scale = sample.boxes[0] / image.boxes[0].clip(1e-6)
    assert np.allclose(scale[image.boxes[0] > 0], scale.max(), rtol=0.05)


@pytest.mark.parametrize(
    ("width", "height", "longer", "canvas"),
    [(640, 480, 320, (256, 320)), (480, 640, 320, (320, 256)), (5000, 10, 320, (32, 320)), (60, 50, None, (64, 64))],
)
def test_the_canvas_has_the_images_proportions_in_multiples_of_32(
    width: int, height: int, longer: int | None, canvas: tuple[int, int], make_coco: MakeFolder
) -> None:
    image = load_data(settings(make_coco(train=6, val=2))).train.images[0]
    assert canvas_of([replace(image, width=width, height=height)], longer) == canvas


def test_large_images_are_held_as_small_as_training_can_use_them() -> None:
    boxes, none = np.array([[80, 60, 400, 300]], np.float32), np.zeros(1, int)
    image = AnnotatedImage(Path("x"), "x", 800, 600, boxes, none, none.astype(bool))
    small = reduced(image, (90, 120))
    assert (small.height, small.width, small.boxes.round(3).tolist()) == (90, 120, [[12, 9, 60, 45]])
    assert reduced(image, (900, 900)) is image


def test_without_a_box_to_validate_on_it_is_said(make_voc: MakeFolder) -> None:
    folder = make_voc(train=8, val=1)
    file = folder / "Annotations" / "p009.xml"
    text = file.read_text()
    file.write_text(text[: text.index("<object>")] + "</annotation>")
    with pytest.raises(UserError, match=r"no boxes to validate on: .* \(1 images\)"):
        load_data(settings(folder))


def replace_an_image(folder: Path) -> None:
    path = folder / "JPEGImages" / "p001.jpg"
    path.write_bytes(path.read_bytes() + b"\0")


def rename_a_class(folder: Path) -> None:
    edit_voc(folder, "p001", "<name>blue", "<name>amber")


@pytest.mark.parametrize("change", [replace_an_image, rename_a_class])
def test_other_images_or_boxes_have_another_hash_and_another_place_has_not(
    change: Callable[[Path], None], make_voc: MakeFolder, tmp_path: Path
) -> None:
    folder = make_voc(train=8, val=2)
    before = load_data(settings(folder)).sha256
    moved = folder.rename(tmp_path / "moved")
    assert load_data(settings(moved, "--seed", 9)).sha256 == before
    change(moved)
    assert load_data(settings(moved)).sha256 != before


def test_boxes_that_are_too_small_are_counted_with_the_size_that_keeps_them(make_coco: MakeFolder) -> None:
    folder = make_coco(train=8, val=2)
    edit_coco(folder, lambda body: [row.update(bbox=[4, 4, 1.4, 20]) for row in body["annotations"][:3]])
    (note,) = (note for note in load_data(settings(folder)).notes if "--image-size" in note)
    assert note.startswith("3 of ")
    size = int(note.split("--image-size ")[1].split()[0])
    assert not any("--image-size" in note for note in load_data(settings(folder, "--image-size", size)).notes)
    assert any("--image-size" in note for note in load_data(settings(folder, "--image-size", size - 32)).notes)


def test_classes_that_a_split_lacks_and_copies_between_splits_are_named(make_voc: MakeFolder) -> None:
    folder = make_voc(train=8, val=3)
    for number in (9, 10, 11):
        text = (folder / "Annotations" / f"p{number:03}.xml").read_text()
        (folder / "Annotations" / f"p{number:03}.xml").write_text(text.replace("blue", "amber"))
    first, copied = (folder / "JPEGImages" / f"p{number:03}.jpg" for number in (1, 9))
    copied.write_bytes(first.read_bytes())
    edit_voc(folder, "p009", "<size>", "<old>", times=1)
    edit_voc(folder, "p009", "</size>", "</old>", times=1)
    notes = load_data(settings(folder, "--on-fault", "clip")).notes
    assert "no val image has a box of blue: the metrics are of the other classes" in notes
    assert "1 of 3 val images are copies of images in an earlier split" in notes


def test_real_blood_cells_are_read_without_a_fault(real_data: Path) -> None:
    data = load_data(settings(real_data / "bccd"))
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (205, 87, 72)
    assert list(data.classes) == ["Platelets", "RBC", "WBC"]
    assert data.canvas == (64, 64)
    assert set(CLASSES).isdisjoint(data.classes)
