"""Pascal VOC folders are read as they are meant, and each fault is named by file and object."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from core.errors import UserError
from projects.detection.annotations import Annotations
from projects.detection.datasets import read, read_folder
from tests.projects.detection.conftest import MakeFolder, draw, edit_voc


def paths_of(annotations: Annotations, split: str = "all") -> list[str]:
    return [image.path.name for image in annotations.splits[split]]


def lists(root: Path, **lines: list[str]) -> None:
    """Replaces the lists of a folder."""
    shutil.rmtree(root / "ImageSets" / "Main")
    (root / "ImageSets" / "Main").mkdir()
    for name, stems in lines.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems) + "\n")


def num_of(annotations: Annotations) -> dict[str, int]:
    return {name: len(split) for name, split in annotations.splits.items()}


def test_without_lists_everything_is_one_split(make_voc: MakeFolder) -> None:
    assert num_of(read_folder(make_voc(unsplit=5))) == {"all": 5}


@pytest.mark.parametrize(("xmin", "left", "note"), [("1", 0, "from pixel 1"), ("0", 0, "from pixel 0")])
def test_boxes_count_from_1_or_from_0_and_it_is_said(xmin: str, left: int, note: str, make_voc: MakeFolder) -> None:
    root = make_voc(train=2)
    file = root / "Annotations" / "p001.xml"
    text = file.read_text()
    box = f"<bndbox><xmin>{xmin}</xmin><ymin>4</ymin><xmax>10</xmax><ymax>20</ymax></bndbox>"
    file.write_text(text[: text.index("<bndbox>")] + box + text[text.index("</bndbox>") + 9 :])
    annotations = read_folder(root)
    assert annotations.splits["train"][0].boxes[0].tolist() == [left, 4 - int(xmin), 10, 20]
    assert any(note in line for line in annotations.notes)


@pytest.mark.parametrize(("text", "ignored"), [("1", True), ("True", True), ("yes", True), ("0", False), ("", False)])
def test_difficult_objects_are_ignored_however_it_is_written(text: str, ignored: bool, make_voc: MakeFolder) -> None:
    root = make_voc(train=2)
    edit_voc(root, "p001", "<difficult>0", f"<difficult>{text}", times=1)
    assert read_folder(root).splits["train"][0].ignored.tolist()[0] == ignored


def test_the_image_of_an_annotations_own_name_is_used_and_a_filename_that_says_another_is_noted(
    make_voc: MakeFolder,
) -> None:
    root = make_voc(unsplit=6)
    for number in range(1, 7):
        edit_voc(root, f"p{number:03}", f"<filename>p{number:03}.jpg", "<filename>p001.jpg")
    annotations = read_folder(root)
    assert paths_of(annotations) == [f"p{number:03}.jpg" for number in range(1, 7)]
    assert any("p002.xml says p001.jpg" in note and "4 more" in note for note in annotations.notes)


@pytest.mark.parametrize("num_without_image", [1, 2])
def test_an_image_that_two_annotations_claim_is_a_fault(num_without_image: int, make_voc: MakeFolder) -> None:
    root = make_voc(unsplit=6)
    other = "p005.jpg" if num_without_image == 1 else "shared.jpg"
    shutil.copy(root / "JPEGImages" / "p005.jpg", root / "JPEGImages" / "shared.jpg")
    for number in range(1, 1 + num_without_image):
        edit_voc(root, f"p{number:03}", f"<filename>p{number:03}.jpg", f"<filename>{other}")
        (root / "JPEGImages" / f"p{number:03}.jpg").unlink()
    with pytest.raises(UserError, match=rf"p001: its image .*{other} belongs to"):
        read_folder(root)
    assert len(read_folder(root, "skip").splits["all"]) == 6 - num_without_image


def test_a_filename_is_used_where_no_image_has_the_annotations_name(make_voc: MakeFolder) -> None:
    root = make_voc(unsplit=3)
    (root / "JPEGImages" / "p001.jpg").rename(root / "JPEGImages" / "other.jpg")
    edit_voc(root, "p001", "<filename>p001.jpg", "<filename>other.jpg")
    assert paths_of(read_folder(root)) == ["other.jpg", "p002.jpg", "p003.jpg"]


def test_upper_case_endings_subfolders_spaces_links_and_hidden_files(make_voc: MakeFolder, tmp_path: Path) -> None:
    root = make_voc(unsplit=4)
    images, files = root / "JPEGImages", root / "Annotations"
    edit_voc(root, "p001", "<filename>p001.jpg</filename>", "")
    (images / "p001.jpg").rename(images / "p001.JPG")
    for folder, ending in ((images, "jpg"), (files, "xml")):
        (folder / "2024").mkdir()
        (folder / f"p002.{ending}").rename(folder / "2024" / f"cell 0.{ending}")
        (folder / f"._p001.{ending}").write_bytes(b"\0")
    (images / "p003.jpg").rename(tmp_path / "elsewhere.jpg")
    os.symlink(tmp_path / "elsewhere.jpg", images / "p003.jpg")
    os.symlink(root, files / "loop")
    annotations = read_folder(root)
    assert sorted(paths_of(annotations)) == ["cell 0.jpg", "p001.JPG", "p003.jpg", "p004.jpg"]
    lists(root, train=["p001", "cell 0", "p003.jpg"], val=["p004.xml"])
    assert num_of(read_folder(root)) == {"train": 3, "val": 1}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"trainval": "1234", "test": "56"}, {"train": 4, "test": 2}),
        ({"trainval": "1234", "val": "34", "test": "56"}, {"train": 2, "val": 2, "test": 2}),
        ({"train": "12", "trainval": "1234", "test": "56"}, {"train": 2, "val": 2, "test": 2}),
        ({"train": "12", "val": "3", "trainval": "123"}, {"train": 2, "val": 1}),
        ({"test": "56"}, {"train": 4, "test": 2}),
        ({"val": "5"}, {"train": 5, "val": 1}),
    ],
    ids=lambda value: "+".join(value),
)
def test_no_image_of_a_list_for_test_or_validation_is_trained_on(
    given: dict[str, str], expected: dict[str, int], make_voc: MakeFolder
) -> None:
    root = make_voc(unsplit=6)
    lists(root, **{name: [f"p00{number}" for number in numbers] for name, numbers in given.items()})
    annotations = read_folder(root)
    assert num_of(annotations) == expected
    names = [image.name for split in annotations.splits.values() for image in split]
    assert len(set(names)) == len(names)
    for name in {"val", "test"} & set(given):
        assert [image.name for image in annotations.splits[name]] == [f"p00{number}" for number in given[name]]
    assert ("train" in given) or any("there is no train.txt" in note for note in annotations.notes)


def test_what_is_wrong_in_a_list_is_named_and_what_is_in_none_is_counted(make_voc: MakeFolder) -> None:
    root = make_voc(train=4, val=2)
    main = root / "ImageSets" / "Main"
    (main / "val.txt").write_text("p005\np001\nmissing\n../../x\n")
    annotations = read(root)
    faults = sorted(str(fault) for fault in annotations.faults)
    assert faults == [
        f"{main}/val.txt: line 3: the annotation file is missing: missing",
        f"{main}/val.txt: line 4: the annotation file is missing: ../../x",
        f"{main}/val.txt: p001: it stands in train.txt already",
    ]
    assert any("1 annotations are in no list" in note for note in annotations.notes)
    assert any("1 images" in note for note in annotations.notes)


FAULTS: dict[str, tuple[str, str, str]] = {
    "edges swapped": ("<xmax>", "<xmax>-", "p001, object 1: the box"),
    "outside": ("<xmax>", "<xmax>9", "lies outside the image of"),
    "NaN": ("<ymin>", "<ymin>nan</ymin><ymin>", "p001, object 1: the box"),
    "text": ("<ymin>", "<ymin>low", "is not four finite numbers"),
    "no edges": ("bndbox", "box", "p001, object 1: the box"),
    "wrong height": ("<height>", "<height>1", "p001: width and height are stated as"),
    "height of zero": ("<height>", "<height>0</height><height>", "p001: width and height are stated as"),
    "height as text": ("<height>", "<height>many</height><height>", "×many, the image has"),
    "no name": ("<name>", "<name></name><old>", "p001"),
    "long name": ("<name>", f"<name>{'x' * 10_000}", "a class name of 10,00"),
    "difficult": ("<difficult>0", "<difficult>perhaps", "difficult is 'perhaps'"),
    "broken XML": ("</annotation>", "", "p001: not readable XML"),
    "unknown encoding": ("<annotation>", '<?xml version="1.0" encoding="bogus"?><annotation>', "not readable XML"),
    "no text encoding": ("<annotation>", '<?xml version="1.0" encoding="hex"?><annotation>', "not readable XML"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_not_used_if_that_is_asked_for(name: str, make_voc: MakeFolder) -> None:
    old, new, named = FAULTS[name]
    root = make_voc(train=6)
    edit_voc(root, "p001", old, new, times=-1 if name == "no edges" else 1)
    if name == "no name":
        edit_voc(root, "p001", "</name>", "</old>", times=2)
        edit_voc(root, "p001", "<name></old>", "<name></name>", times=1)
    assert_named(root, named, f"{root}/Annotations/p001.xml")


@pytest.mark.parametrize(
    ("filename", "named"),
    [
        ("p001.jpg", "p001: the image is missing"),
        ("../../secret.jpg", "p001: its image '../../secret.jpg' lies outside the folder"),
        ("/etc/passwd", "p001: its image '/etc/passwd' lies outside the folder"),
        ("x" * 5000, "lies outside the folder"),
    ],
    ids=["missing", "path outside", "absolute", "long"],
)
def test_an_image_that_is_not_there_is_named(filename: str, named: str, make_voc: MakeFolder) -> None:
    root = make_voc(train=6)
    edit_voc(root, "p001", "p001.jpg", filename)
    (root / "JPEGImages" / "p001.jpg").unlink()
    assert_named(root, named, f"{root}/Annotations/p001.xml")


def assert_named(root: Path, named: str, file: str) -> None:
    with pytest.raises(UserError) as caught:
        read_folder(root)
    assert named in str(caught.value)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)
    skipped = read_folder(root, "skip")
    assert skipped.faults
    assert sum(len(image.boxes) for image in skipped.splits["train"]) > 0


@pytest.mark.parametrize("size", ["96.0", "{width}.0"])
def test_a_size_may_be_written_as_a_decimal_number(size: str, make_voc: MakeFolder) -> None:
    root = make_voc(train=2)
    width = draw(1).pixels.shape[1]
    edit_voc(root, "p001", f"<width>{width}", f"<width>{size.format(width=width)}")
    if size == "96.0":
        with pytest.raises(UserError, match=r"stated as 96\.0×"):
            read_folder(root)
    else:
        assert len(read_folder(root).splits["train"]) == 2


def test_a_class_that_only_validation_has_is_named(make_voc: MakeFolder) -> None:
    root = make_voc(train=4, val=2)
    edit_voc(root, "p005", "<name>", "<name>dark-", times=1)
    with pytest.raises(UserError, match="p005, object 1: unknown category 'dark-"):
        read_folder(root)
    image = read_folder(root, "skip").splits["val"][0]
    assert (image.labels.tolist()[0], image.ignored.tolist()[0]) == (-1, True)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_a_turned_image_needs_boxes_and_size_for_what_is_seen(suffix: str, make_voc: MakeFolder) -> None:
    """Orientation 6: the stored size is that of the image lying on its side."""
    root = make_voc(train=6)
    path = root / "JPEGImages" / "p001.jpg"
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path.with_suffix(f".{suffix}"), exif=exif)
    if suffix != "jpg":
        path.unlink()
    height, width = draw(1).pixels.shape[:2]
    with pytest.raises(
        UserError, match=f"p001: width and height are stated as {width}×{height}, .* has {height}×{width}"
    ):
        read_folder(root)
    edit_voc(root, "p001", f"<width>{width}</width><height>{height}", f"<width>{height}</width><height>{width}")
    annotations = read(root)
    image_faults = [fault for fault in annotations.faults if "stated" in fault.what]
    assert not image_faults
    first = annotations.splits["train"][0]
    assert (first.width, first.height) == (height, width)


def test_no_annotations_or_no_boxes_are_refused(make_voc: MakeFolder) -> None:
    with pytest.raises(UserError, match="no annotations"):
        read_folder(make_voc("empty"))
    root = make_voc("without", unsplit=1)
    (root / "Annotations" / "p001.xml").write_text("<annotation><filename>p001.jpg</filename></annotation>")
    with pytest.raises(UserError, match="no boxes in any annotation"):
        read_folder(root)


@pytest.mark.parametrize("place", ["Annotations/p001.xml", "JPEGImages/p001.jpg", "ImageSets/Main/train.txt"])
def test_a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for(place: str, make_voc: MakeFolder) -> None:
    root = make_voc(train=4)
    (root / place).unlink()
    os.mkfifo(root / place)
    with pytest.raises(UserError, match="not a regular file"):
        read_folder(root)


def test_a_file_that_is_too_large_is_not_read(make_voc: MakeFolder) -> None:
    root = make_voc(train=4)
    with (root / "Annotations" / "p001.xml").open("ab") as file:
        file.truncate(1 << 34)  # sparse
    with pytest.raises(UserError, match="p001: not readable XML"):
        read_folder(root)
