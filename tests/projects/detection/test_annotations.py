"""Both forms of folder are read as they are meant, and each fault in them is named by file and object."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from projects.detection.annotations import Annotations, read, read_folder
from tests.conftest import Program
from tests.projects.detection.conftest import CLASSES, MakeFolder, draw

Change = Callable[[dict[str, Any]], None]


def boxes_of(found: Annotations, split: str) -> list[list[list[float]]]:
    return [picture.boxes.tolist() for picture in found.splits[split]]


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_boxes_classes_and_splits_are_those_that_were_drawn(
    form: str, make_voc: MakeFolder, make_coco: MakeFolder
) -> None:
    make = make_voc if form == "voc" else make_coco
    found = read_folder(make(train=8, val=3, test=2))
    assert (found.form, found.classes, found.faults) == (form, list(CLASSES), [])
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 8, "val": 3, "test": 2}
    for split, first in (("train", 1), ("val", 9), ("test", 12)):
        for number, picture in enumerate(found.splits[split], first):
            drawn = draw(number)
            assert picture.boxes.tolist() == [list(box) for box in drawn.boxes]
            assert picture.labels.tolist() == drawn.labels
            assert (picture.height, picture.width) == drawn.pixels.shape[:2]
            assert (picture.boxes.dtype, picture.labels.dtype) == (np.float32, np.int64)
    assert any(len(picture.boxes) == 0 for picture in found.splits["train"])


def test_without_lists_of_splits_voc_is_one_split(make_voc: MakeFolder) -> None:
    found = read_folder(make_voc(unsplit=5))
    assert {name: len(split) for name, split in found.splits.items()} == {"all": 5}


def test_voc_counts_from_1_and_says_so(make_voc: MakeFolder) -> None:
    found = read_folder(make_voc(train=5))
    assert any("from pixel 1" in note for note in found.notes)


def test_voc_files_that_count_from_0_are_read_so_and_it_is_said(make_voc: MakeFolder) -> None:
    root = make_voc(train=2)
    edit(root, "p002", "<name>", "<name>")
    text = (root / "Annotations" / "p001.xml").read_text()
    start, end = text.index("<bndbox>"), text.index("</bndbox>")
    corner = "<bndbox><xmin>0</xmin><ymin>4</ymin><xmax>10</xmax><ymax>20</ymax>"
    (root / "Annotations" / "p001.xml").write_text(text[:start] + corner + text[end:])
    found = read_folder(root)
    assert found.splits["train"][0].boxes[0].tolist() == [0, 4, 10, 20]
    assert any("from pixel 0" in note for note in found.notes)


def test_difficult_and_crowd_are_not_counted(make_voc: MakeFolder, make_coco: MakeFolder) -> None:
    voc = make_voc(train=2)
    edit(voc, "p001", "<difficult>0", "<difficult>1", times=1)
    assert read_folder(voc).splits["train"][0].uncounted.tolist()[0]
    coco = make_coco(train=2)

    def make_crowd(body: dict[str, Any]) -> None:
        body["annotations"][0]["iscrowd"] = 1

    change(coco, make_crowd)
    assert read_folder(coco).splits["train"][0].uncounted.tolist()[0]


def test_a_box_that_rounding_put_a_pixel_outside_is_cut(make_coco: MakeFolder) -> None:
    root = make_coco(train=2)

    def move(body: dict[str, Any]) -> None:
        body["annotations"][0]["bbox"] = [-0.8, 0.0, 10.8, body["images"][0]["height"] + 0.5]

    change(root, move)
    picture = read_folder(root).splits["train"][0]
    assert picture.boxes[0].tolist() == [0, 0, 10, picture.height]


def test_folders_of_one_json_each_are_read(make_coco: MakeFolder, tmp_path: Path) -> None:
    source, root = make_coco(train=4, val=2), tmp_path / "other"
    for split, folder in (("train", "train"), ("val", "valid")):
        (root / folder).mkdir(parents=True)
        file = source / "annotations" / f"instances_{split}.json"
        (root / folder / "_annotations.coco.json").write_text(file.read_text())
        for picture in (source / "images" / split).iterdir():
            picture.rename(root / folder / picture.name)
    found = read_folder(root)
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 4, "val": 2}


def test_categories_that_no_box_has_are_no_classes(make_coco: MakeFolder) -> None:
    root = make_coco(train=4)
    change(root, lambda body: body["categories"].append({"id": 99, "name": "unused"}))
    assert read_folder(root).classes == list(CLASSES)


def edit(root: Path, stem: str, old: str, new: str, times: int = -1) -> None:
    """Replaces text in an annotation of a VOC folder."""
    file = root / "Annotations" / f"{stem}.xml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, times))


def change(root: Path, act: Change) -> None:
    """Changes the training annotations of a COCO folder."""
    file = root / "annotations" / "instances_train.json"
    body = json.loads(file.read_text())
    act(body)
    file.write_text(json.dumps(body))


def bbox(value: Any) -> Change:
    """Gives the first annotation another box."""
    return lambda body: body["annotations"][0].update(bbox=value)


COCO_FAULTS: dict[str, tuple[Change, str]] = {
    "no width": (bbox([5, 5, 0, 10]), "annotation 1: the box 5 5 5 15 has no area"),
    "negative height": (bbox([5, 5, 10, -3]), "annotation 1: the box 5 5 15 2 has no area"),
    "outside": (bbox([5, 5, 500, 10]), "annotation 1: the box 5 5 505 15 lies outside the picture of"),
    "negative corner": (bbox([-5, 5, 10, 10]), "annotation 1: the box -5 5 5 15 lies outside"),
    "NaN": (bbox([5, float("nan"), 10, 10]), "annotation 1: the box [5, nan, 10, 10] is not four finite numbers"),
    "infinity": (bbox([5, 5, float("inf"), 10]), "annotation 1: the box"),
    "text": (bbox(["5", 5, 10, 10]), "annotation 1: the box ['5', 5, 10, 10] is not four finite numbers"),
    "truth value": (bbox([True, 5, 10, 10]), "annotation 1: the box"),
    "three numbers": (bbox([5, 5, 10]), "annotation 1: the box"),
    "no box": (lambda body: body["annotations"][0].pop("bbox"), "annotation 1: the box"),
    "huge number": (bbox([5, 5, 10**400, 10]), "annotation 1: the box"),
    "unknown category": (
        lambda body: body["annotations"][0].update(category_id=77),
        "annotation 1: unknown category_id 77",
    ),
    "category as text": (
        lambda body: body["annotations"][0].update(category_id="3"),
        "annotation 1: unknown category_id '3'",
    ),
    "no category": (lambda body: body["annotations"][0].pop("category_id"), "unknown category_id None"),
    "category twice": (
        lambda body: body["categories"].append(dict(body["categories"][0])),
        "category 3: the id or the name 'amber' stands twice",
    ),
    "unknown image": (lambda body: body["annotations"][0].update(image_id=999), "annotation 1: unknown image_id 999"),
    "image as list": (lambda body: body["annotations"][0].update(image_id=[1]), "annotation 1: unknown image_id [1]"),
    "annotation id twice": (
        lambda body: body["annotations"][1].update(id=body["annotations"][0]["id"]),
        "annotation 1: the id stands twice",
    ),
    "image id twice": (lambda body: body["images"][1].update(id=1), "image 1: the id stands twice"),
    "image id as text": (lambda body: body["images"][1].update(id="b"), "image b: an image needs a whole number as id"),
    "missing image": (lambda body: body["images"][1].update(file_name="gone.png"), "image 2: the picture is missing"),
    "path outside": (
        lambda body: body["images"][1].update(file_name="../../../secret.png"),
        "image 2: its file_name '../../../secret.png' lies outside the folder",
    ),
    "absolute path": (
        lambda body: body["images"][1].update(file_name="/etc/passwd"),
        "image 2: its file_name '/etc/passwd' lies outside the folder",
    ),
    "lying width": (lambda body: body["images"][1].update(width=7), "image 2: width and height are stated as 7×"),
    "picture twice": (
        lambda body: body["images"][2].update(file_name=body["images"][1]["file_name"]),
        "00002.png stands in train (image 2) already",
    ),
}


@pytest.mark.parametrize("name", COCO_FAULTS)
def test_a_fault_of_a_coco_file_is_named_and_left_out_if_that_is_asked_for(name: str, make_coco: MakeFolder) -> None:
    act, named = COCO_FAULTS[name]
    root = make_coco(train=6)
    change(root, act)
    with pytest.raises(UserError) as caught:
        read_folder(root)
    assert named in str(caught.value)
    assert f"{root}/annotations/instances_train.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    skipped = read_folder(root, on_fault="skip")
    assert skipped.faults
    assert sum(len(picture.boxes) for picture in skipped.splits["train"]) > 0


VOC_FAULTS: dict[str, tuple[str, str, str]] = {
    "edges swapped": ("<xmax>", "<xmax>-", "p001, object 1: the box"),
    "outside": ("<xmax>", "<xmax>9", "lies outside the picture of"),
    "NaN": ("<ymin>", "<ymin>nan</ymin><ymin>", "p001, object 1: the box"),
    "text": ("<ymin>", "<ymin>low", "is not four finite numbers"),
    "no edges": ("bndbox", "box", "p001, object 1: the box"),
    "lying height": ("<height>", "<height>1", "p001: width and height are stated as"),
    "height of zero": ("<height>", "<height>0</height><height>", "p001: width and height are stated as"),
    "no name": ("<name>", "<label>x</label><name></name><old>", "p001"),
    "broken XML": ("</annotation>", "", "p001: not readable XML"),
    "missing picture": ("p001.jpg", "nothing-like-it.jpg", "p001"),
    "path outside": ("p001.jpg", "../../secret.jpg", "p001: its picture '../../secret.jpg' lies outside the folder"),
    "absolute path": ("p001.jpg", "/etc/passwd", "p001: its picture '/etc/passwd' lies outside the folder"),
}


@pytest.mark.parametrize("name", VOC_FAULTS)
def test_a_fault_of_a_voc_file_is_named_and_left_out_if_that_is_asked_for(name: str, make_voc: MakeFolder) -> None:
    old, new, named = VOC_FAULTS[name]
    root = make_voc(train=6)
    edit(root, "p001", old, new, times=-1 if name == "no edges" else 1)
    if name == "missing picture":
        (root / "JPEGImages" / "p001.jpg").unlink()
        named = "p001: the picture is missing"
    with pytest.raises(UserError) as caught:
        read_folder(root)
    assert named in str(caught.value)
    assert f"{root}/Annotations/p001.xml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(read_folder(root, on_fault="skip").faults) >= 1


def test_what_the_lists_of_a_voc_folder_can_have_wrong_is_named(make_voc: MakeFolder) -> None:
    root = make_voc(train=4, val=2)
    lists = root / "ImageSets" / "Main"
    (lists / "val.txt").write_text("p005\np001\nmissing\n../../x\n")
    faults = [str(fault) for fault in read(root).faults]
    assert faults[0] == f"{lists}/val.txt: line 2: p001 stands in train.txt already"
    assert any("missing: the annotation file is missing" in fault for fault in faults)
    assert any("../../x: the name leads out of the folder" in fault for fault in faults)
    with pytest.raises(UserError, match="2 more faults"):
        read_folder(root)


def test_a_class_that_only_validation_has_is_named(make_voc: MakeFolder, make_coco: MakeFolder) -> None:
    voc = make_voc(train=4, val=2)
    edit(voc, "p005", "<name>", "<name>dark-", times=1)
    with pytest.raises(UserError, match="p005, object 1: unknown category 'dark-"):
        read_folder(voc)
    coco = make_coco(train=4, val=2)
    file = coco / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace('"amber"', '"violet"').replace('"blue"', '"green"'))
    with pytest.raises(UserError, match="the training pictures have only amber, blue"):
        read_folder(coco)


def test_a_picture_in_two_splits_is_named(make_coco: MakeFolder) -> None:
    root = make_coco(train=4, val=2)
    change(root, lambda body: body["images"][0].update(file_name="../val/00005.png"))
    with pytest.raises(UserError, match="lies outside"):
        read_folder(root)


def test_a_link_that_leads_out_of_the_folder_is_not_followed(make_coco: MakeFolder, tmp_path: Path) -> None:
    root = make_coco(train=4)
    picture = root / "images" / "train" / "00001.png"
    picture.rename(tmp_path / "outside.png")
    os.symlink(tmp_path / "outside.png", picture)
    with pytest.raises(UserError, match=r"image 1: its file_name '00001\.png' lies outside the folder"):
        read_folder(root)


@pytest.mark.parametrize("content", ["", "[", "[" * 100_000, '{"images": 3}', "[1]", '{"images": [], "x": 1e5'])
def test_a_file_that_is_no_coco_file_is_named(content: str, make_coco: MakeFolder) -> None:
    root = make_coco(train=2)
    file = root / "annotations" / "instances_train.json"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        read_folder(root)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named(encoding: str, make_coco: MakeFolder) -> None:
    root = make_coco(train=2)
    file = root / "annotations" / "instances_train.json"
    file.write_bytes(file.read_text().replace("amber", "ambré").encode(encoding))
    with pytest.raises(UserError, match="not a readable annotation file"):
        read_folder(root)


def test_an_id_of_five_thousand_digits_is_named(make_coco: MakeFolder) -> None:
    root = make_coco(train=2)
    file = root / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace('"id": 1,', f'"id": {"9" * 5000},', 1))
    with pytest.raises(UserError, match="not a readable annotation file"):
        read_folder(root)


def test_folders_that_are_neither_form_or_hold_nothing_are_refused(tmp_path: Path, make_voc: MakeFolder) -> None:
    with pytest.raises(UserError, match="neither Pascal VOC nor COCO"):
        read_folder(tmp_path)
    empty = make_voc("empty")
    with pytest.raises(UserError, match="no annotations"):
        read_folder(empty)
    without = make_voc("without", unsplit=1)
    (without / "Annotations" / "p001.xml").write_text("<annotation><filename>p001.jpg</filename></annotation>")
    with pytest.raises(UserError, match="no boxes in any annotation"):
        read_folder(without)


def test_two_files_of_a_split_or_one_of_none_are_refused(make_coco: MakeFolder) -> None:
    root = make_coco(train=2, val=2)
    file = root / "annotations" / "instances_train.json"
    second = file.with_name("instances_train_b.json")
    second.write_text(file.read_text())
    with pytest.raises(UserError, match="two annotation files of a split"):
        read_folder(root)
    second.rename(file.with_name("more.json"))
    with pytest.raises(UserError, match=r"more\.json"):
        read_folder(root)


def test_a_picture_turned_by_its_camera_needs_boxes_for_what_is_seen(make_voc: MakeFolder) -> None:
    root = make_voc(train=6)
    path = root / "JPEGImages" / "p001.jpg"
    with Image.open(path) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(path, exif=exif)
    with pytest.raises(UserError, match="p001: width and height are stated as"):
        read_folder(root)


def test_the_program_prints_all_faults_and_leaves_with_2(make_coco: MakeFolder, program: Program) -> None:
    root = make_coco(train=6)
    done = program("projects.detection.annotations", root)
    assert done.returncode == 0, done.stderr
    assert "6 pictures" in done.stdout
    assert done.stdout.endswith("no faults\n")

    def spoil(body: dict[str, Any]) -> None:
        body["annotations"][0]["bbox"] = [0, 0, 0, 0]
        body["annotations"][1]["image_id"] = 55

    change(root, spoil)
    done = program("projects.detection.annotations", root)
    assert done.returncode == 2
    assert "annotation 1: the box 0 0 0 0 has no area" in done.stdout
    assert "annotation 2: unknown image_id 55" in done.stdout
    assert done.stderr == f"error: faulty annotations: 2 in {root}; see the lines above\n"
