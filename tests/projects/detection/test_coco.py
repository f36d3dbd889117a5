"""COCO folders are read as they are meant, and each fault is named by file and object."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from projects.detection.datasets import read_folder
from tests.projects.detection.conftest import CLASSES, MakeFolder, edit_coco

Change = Callable[[dict[str, Any]], object]


def num_of(root: Path) -> dict[str, int]:
    return {name: len(split) for name, split in read_folder(root).splits.items()}


@pytest.mark.parametrize(("value", "ignored"), [(1, True), ("1", True), (True, True), (0, False), ("0", False)])
def test_crowds_are_ignored_however_it_is_written(value: Any, ignored: bool, make_coco: MakeFolder) -> None:
    root = make_coco(train=2)
    edit_coco(root, lambda body: body["annotations"][0].update(iscrowd=value))
    assert read_folder(root).splits["train"][0].ignored.tolist()[0] == ignored


def test_a_box_that_rounding_put_a_pixel_outside_is_cut(make_coco: MakeFolder) -> None:
    root = make_coco(train=2)
    edit_coco(
        root,
        lambda body: body["annotations"][0].update(bbox=[-0.8, 0.0, 10.8, body["images"][0]["height"] + 0.5]),
    )
    image = read_folder(root).splits["train"][0]
    assert image.boxes[0].tolist() == [0, 0, 10, image.height]


@pytest.mark.parametrize("folders", [("train", "valid"), ("Train", "Validation")])
def test_folders_of_one_json_each_are_read(folders: tuple[str, str], make_coco: MakeFolder, tmp_path: Path) -> None:
    source, root = make_coco(train=4, val=2), tmp_path / "other"
    for split, folder in zip(("train", "val"), folders, strict=True):
        (root / folder).mkdir(parents=True)
        file = source / "annotations" / f"instances_{split}.json"
        (root / folder / "_annotations.coco.json").write_text(file.read_text())
        for image in (source / "images" / split).iterdir():
            image.rename(root / folder / image.name)
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints" / "_annotations.coco.json").write_text("{}")
    assert num_of(root) == {"train": 4, "val": 2}


@pytest.mark.parametrize("name", ["unused", "amber"])
def test_categories_that_no_box_has_are_no_classes_whatever_their_name(name: str, make_coco: MakeFolder) -> None:
    """Some tools write an unused root category that is named like a class."""
    root = make_coco(train=4)
    edit_coco(root, lambda body: body["categories"].insert(0, {"id": 0, "name": name}))
    assert read_folder(root).classes == list(CLASSES)


def test_ids_and_sizes_may_be_texts(make_coco: MakeFolder) -> None:
    root = make_coco(train=4)
    before = read_folder(root)

    def as_texts(body: dict[str, Any]) -> None:
        for table, names in (("images", ("id", "width", "height")), ("categories", ("id",))):
            for row in body[table]:
                row.update({name: str(row[name]) for name in names})
        for row in body["annotations"]:
            row.update(id=f"box-{row['id']}", category_id=str(row["category_id"]), image_id=float(row["image_id"]))

    edit_coco(root, as_texts)
    after = read_folder(root)
    assert after.classes == before.classes
    for one, other in zip(before.splits["train"], after.splits["train"], strict=True):
        assert one.boxes.tolist() == other.boxes.tolist()
        assert one.labels.tolist() == other.labels.tolist()


def test_a_file_for_another_task_beside_a_single_one_without_a_split(make_coco: MakeFolder) -> None:
    root = make_coco(train=3)
    folder = root / "annotations"
    (folder / "instances_train.json").rename(folder / "instances_default.json")
    (root / "images" / "train").rename(root / "images" / "default")
    (folder / "person_keypoints_default.json").write_text("{}")
    assert num_of(root) == {"all": 3}


def bbox(value: Any) -> Change:
    """Gives the first annotation another box."""
    return lambda body: body["annotations"][0].update(bbox=value)


def first(table: str, **values: Any) -> Change:
    """Changes the first entry of a table."""
    return lambda body: body[table][0].update(values)


FAULTS: dict[str, tuple[Change, str]] = {
    "no width": (bbox([5, 5, 0, 10]), "annotation 1: the box 5 5 5 15 has no area"),
    "negative height": (bbox([5, 5, 10, -3]), "annotation 1: the box 5 5 15 2 has no area"),
    "outside": (bbox([5, 5, 500, 10]), "annotation 1: the box 5 5 505 15 lies outside the image of"),
    "negative corner": (bbox([-5, 5, 10, 10]), "annotation 1: the box -5 5 5 15 lies outside"),
    "NaN": (bbox([5, float("nan"), 10, 10]), "annotation 1: the box [5, nan, 10, 10] is not four finite numbers"),
    "infinity": (bbox([5, 5, float("inf"), 10]), "annotation 1: the box"),
    "text": (bbox(["5", 5, 10, 10]), "annotation 1: the box ['5', 5, 10, 10] is not four finite numbers"),
    "truth value": (bbox([True, 5, 10, 10]), "annotation 1: the box"),
    "three numbers": (bbox([5, 5, 10]), "annotation 1: the box"),
    "no box": (lambda body: body["annotations"][0].pop("bbox"), "annotation 1: the box"),
    "huge number": (bbox([5, 5, 10**400, 10]), "annotation 1: the box"),
    "unknown category": (first("annotations", category_id=77), "annotation 1: unknown category_id 77"),
    "no category": (lambda body: body["annotations"][0].pop("category_id"), "unknown category_id None"),
    "category twice": (
        lambda body: body["categories"].append(dict(body["categories"][0])),
        "category 3: the id stands twice",
    ),
    "name twice": (first("categories", name="blue"), "another category is named 'blue' too"),
    "long name": (first("categories", name="x" * 10_000), "category 3: a class name of 10,000 characters"),
    "lone surrogate": (first("categories", name="a\ud800b"), "category 3: the class name 'a\\ud800b' is not"),
    "no name": (first("categories", name=""), "category 3: it has no name"),
    "crowd": (first("annotations", iscrowd="many"), "annotation 1: iscrowd is 'many'"),
    "unknown image": (first("annotations", image_id=999), "annotation 1: unknown image_id 999"),
    "image as list": (first("annotations", image_id=[1]), "annotation 1: unknown image_id [1]"),
    "annotation id twice": (
        lambda body: body["annotations"][1].update(id=body["annotations"][0]["id"]),
        "annotation 1: the id stands twice",
    ),
    "image id twice": (lambda body: body["images"][1].update(id=1), "image 1: the id stands twice"),
    "image id as list": (lambda body: body["images"][1].update(id=[]), "an image needs an id"),
    "missing image": (lambda body: body["images"][1].update(file_name="gone.png"), "image 2: the image is missing"),
    "path outside": (
        lambda body: body["images"][1].update(file_name="../../../secret.png"),
        "image 2: its file_name '../../../secret.png' lies outside the folder",
    ),
    "absolute path": (
        lambda body: body["images"][1].update(file_name="/etc/passwd"),
        "image 2: its file_name '/etc/passwd' lies outside the folder",
    ),
    "long path": (lambda body: body["images"][1].update(file_name="x" * 9000), "image 2: its file_name 'xxx"),
    "path no text": (lambda body: body["images"][1].update(file_name="\udc80.png"), "image 2: its file_name"),
    "wrong width": (lambda body: body["images"][1].update(width=7), "image 2: width and height are stated as 7×"),
    "image twice": (
        lambda body: body["images"][2].update(file_name=body["images"][1]["file_name"]),
        "00002.png stands in train (image 2) already",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_not_used_if_that_is_asked_for(name: str, make_coco: MakeFolder) -> None:
    act, named = FAULTS[name]
    root = make_coco(train=6)
    edit_coco(root, act)
    with pytest.raises(UserError) as caught:
        read_folder(root)
    assert named in str(caught.value)
    assert f"{root}/annotations/instances_train.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    skipped = read_folder(root, "skip")
    assert skipped.faults
    assert sum(len(image.boxes) for image in skipped.splits["train"]) > 0


def test_a_class_that_only_validation_has_is_named(make_coco: MakeFolder) -> None:
    root = make_coco(train=4, val=2)
    file = root / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace('"amber"', '"violet"').replace('"blue"', '"green"'))
    with pytest.raises(UserError, match="the training images have only amber, blue"):
        read_folder(root)


def test_a_link_to_an_image_is_followed(make_coco: MakeFolder, tmp_path: Path) -> None:
    root = make_coco(train=4)
    image = root / "images" / "train" / "00001.png"
    image.rename(tmp_path / "outside.png")
    os.symlink(tmp_path / "outside.png", image)
    assert num_of(root) == {"train": 4}


@pytest.mark.parametrize(
    "content", ["", "[", "[" * 100_000, '{"images": 3}', "[1]", '{"images": [], "x": 1e5', '{"id": ' + "9" * 5000 + "}"]
)
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
    file.write_bytes(json.dumps(json.loads(file.read_text()) | {"é": 1}, ensure_ascii=False).encode(encoding))
    with pytest.raises(UserError, match="not a readable annotation file"):
        read_folder(root)


@pytest.mark.parametrize("place", ["annotations/instances_train.json", "images/train/00001.png"])
def test_a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for(place: str, make_coco: MakeFolder) -> None:
    root = make_coco(train=2)
    (root / place).unlink()
    os.mkfifo(root / place)
    with pytest.raises(UserError, match="not a regular file"):
        read_folder(root)


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
