"""Both forms of folder give the same images; faults stop, are skipped or cut; the checking program shows all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from projects.detection.annotations import UNKNOWN_LABEL
from projects.detection.datasets import describe, read_folder
from tests.conftest import Program
from tests.projects.detection.conftest import CLASSES, MakeFolder, draw, edit_coco, edit_voc


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_boxes_classes_and_splits_are_those_that_were_drawn(
    form: str, make_voc: MakeFolder, make_coco: MakeFolder
) -> None:
    make = make_voc if form == "voc" else make_coco
    annotations = read_folder(make(train=8, val=3, test=2))
    assert (annotations.form, annotations.classes, annotations.faults) == (form, list(CLASSES), [])
    assert {name: len(split) for name, split in annotations.splits.items()} == {"train": 8, "val": 3, "test": 2}
    for split, first in (("train", 1), ("val", 9), ("test", 12)):
        for number, image in enumerate(annotations.splits[split], first):
            drawn = draw(number)
            assert image.boxes.tolist() == [list(box) for box in drawn.boxes]
            assert image.labels.tolist() == drawn.labels
            assert (image.height, image.width) == drawn.pixels.shape[:2]
            assert (str(image.boxes.dtype), str(image.labels.dtype)) == ("float32", "int64")
    assert any(len(image.boxes) == 0 for image in annotations.splits["train"])


def test_a_folder_in_neither_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither Pascal VOC nor COCO"):
        read_folder(tmp_path)


def test_a_truncated_image_is_found_at_once_and_left_out_if_that_is_asked_for(make_voc: MakeFolder) -> None:
    root = make_voc(train=4, test=2)
    broken = root / "JPEGImages" / "p005.jpg"
    broken.write_bytes(broken.read_bytes()[:-300])  # its size can still be read
    with pytest.raises(UserError, match=r"p005: not a readable image: .*p005\.jpg"):
        read_folder(root)
    skipped = read_folder(root, "skip")
    assert [image.name for image in skipped.splits["test"]] == ["p006"]


@pytest.mark.parametrize(
    ("bbox", "region"),
    [([-6, 10, 26, 20], [0, 10, 20, 30]), ([20, 5, -9, 10], [11, 5, 20, 15]), ([7, 8, 0, 12], [6, 8, 8, 20])],
    ids=["outside", "negative width", "no width"],
)
def test_a_faulty_object_is_ignored_for_every_class_and_not_left_as_background(
    bbox: list[int], region: list[int], make_coco: MakeFolder
) -> None:
    root = make_coco(train=4)
    edit_coco(root, lambda body: body["annotations"][0].update(bbox=bbox))
    image = read_folder(root, "skip").splits["train"][0]
    assert image.ignored.tolist()[0]
    assert image.labels.tolist()[0] == UNKNOWN_LABEL
    assert image.boxes[0].tolist() == region


def test_an_image_with_an_object_whose_place_is_unknown_is_left_out(make_coco: MakeFolder) -> None:
    root = make_coco(train=4)
    edit_coco(root, lambda body: body["annotations"][0].update(bbox=[1, 2, None, 4]))
    assert [image.name for image in read_folder(root, "skip").splits["train"]] == ["image 2", "image 3", "image 4"]


def test_boxes_are_cut_at_the_border_and_counted_if_that_is_asked_for(make_coco: MakeFolder) -> None:
    root = make_coco(train=4)
    edit_coco(root, lambda body: body["annotations"][0].update(bbox=[-6, 10, 26, 20]))
    with pytest.raises(UserError, match="--on-fault clip"):
        read_folder(root)
    annotations = read_folder(root, "clip")
    image = annotations.splits["train"][0]
    assert (image.boxes[0].tolist(), bool(image.ignored[0]), image.labels[0] >= 0) == ([0, 10, 20, 30], False, True)
    assert "1 boxes reached over their image by up to 6 pixels and were cut there" in annotations.notes
    edit_coco(root, lambda body: body["annotations"][1].update(bbox=[-60, 10, 26, 20]))
    with pytest.raises(UserError, match="annotation 2: the box -60 10 -34 30 lies outside"):
        read_folder(root, "clip")


def test_many_faults_are_shown_in_part_and_counted(make_voc: MakeFolder) -> None:
    root = make_voc(train=40)
    for number in range(1, 30):
        (root / "JPEGImages" / f"p{number:03}.jpg").unlink()
    lines = describe(read_folder(root, "skip"))
    assert sum(line.startswith("faulty, not used: ") for line in lines) == 20
    assert lines[-1] == "and 9 more faults"


def test_floating_point_pixels_are_refused_by_name(make_voc: MakeFolder) -> None:
    root = make_voc(train=4)
    edit_voc(root, "p001", "<filename>p001.jpg</filename>", "")
    (root / "JPEGImages" / "p001.jpg").unlink()
    pixels = draw(1).pixels[..., 0].astype(np.float32)
    Image.fromarray(pixels).save(root / "JPEGImages" / "p001.tif")
    with pytest.raises(UserError, match=r"p001\.tif .*floating-point"):
        read_folder(root)


def test_the_program_prints_all_faults_and_leaves_with_2(make_coco: MakeFolder, program: Program) -> None:
    root = make_coco(train=6)
    done = program("projects.detection.datasets", root)
    assert done.returncode == 0, done.stderr
    assert "6 images" in done.stdout
    assert done.stdout.endswith("no faults\n")

    def spoil(body: dict[str, Any]) -> None:
        body["annotations"][0]["bbox"] = [0, 0, 0, 0]
        body["annotations"][1]["image_id"] = 55

    edit_coco(root, spoil)
    done = program("projects.detection.datasets", root)
    assert done.returncode == 2
    assert "annotation 1: the box 0 0 0 0 has no area" in done.stdout
    assert "annotation 2: unknown image_id 55" in done.stdout
    assert done.stderr == f"error: faulty annotations: 2 in {root}; see the lines above\n"
