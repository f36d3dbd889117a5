"""Folders are read in order and whole; what is left out is counted; what cannot be a data set is named."""

from pathlib import Path

import pytest
from PIL import Image

from core.errors import UserError
from core.vision.folders import find_splits, input_images, list_classes, list_images


def fill(folder: Path, *names: str) -> Path:
    """Images (or, with another ending, texts) by name, in folders made for them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg"):
            Image.new("RGB", (4, 4)).save(path)
        else:
            path.write_text("x", encoding="utf-8")
    return folder


def test_classes_are_listed_by_name_with_their_subfolders(tmp_path: Path) -> None:
    fill(tmp_path, "dog/2.PNG", "dog/1.png", "cat/2024/may/x.png", "cat/a.png")
    listing = list_classes(tmp_path)
    assert list(listing.classes) == ["cat", "dog"]
    names = [path.relative_to(tmp_path).as_posix() for path in listing.paths]
    assert names == ["cat/2024/may/x.png", "cat/a.png", "dog/1.png", "dog/2.PNG"]
    assert listing.labels.tolist() == [0, 0, 1, 1]
    assert list(listing.notes) == []
    other = list_classes(tmp_path, classes=["ant", "cat", "dog"])
    assert other.labels.tolist() == [1, 1, 2, 2]
    assert any("ant" in note for note in other.notes)


def test_hidden_names_never_count_and_all_that_is_left_out_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", ".git/x.png", "__MACOSX/a/._1.png", "a/._1.png", "loose.png")
    fill(tmp_path, "b/.ipynb_checkpoints/1.png", "b/x.heic", "b/y.HEIC", "b/note.txt")
    listing = list_classes(tmp_path)
    assert (list(listing.classes), len(listing.paths)) == (["a", "b"], 2)
    (note,) = listing.notes
    for part in ("4 hidden", "2 .heic", "1 .txt", "1 beside"):
        assert part in note
    assert len(list_images(tmp_path).paths) == 3


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    fill(tmp_path / "pool", "x.png", "deep/y.png")
    root = tmp_path / "root"
    fill(root, "a/1.png", "b/1.png")
    (root / "a" / "linked.png").symlink_to(tmp_path / "pool" / "x.png")
    (root / "b" / "pool").symlink_to(tmp_path / "pool")
    (tmp_path / "pool" / "deep" / "loop").symlink_to(tmp_path / "pool")
    (root / "c").symlink_to(tmp_path / "pool" / "deep")
    listing = list_classes(root)
    assert [sum(listing.labels == label) for label in range(3)] == [2, 3, 2]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train/a/1.png", "val/a/1.png", "test/a/1.png"), {"train", "val", "test"}),
        (("Train/a/1.png", "Valid/a/1.png"), {"train", "val"}),
        (("train/a/1.png", "validation/a/1.png", "docs/x.txt"), {"train", "val"}),
        (("train/1.png", "test/1.png"), {"train", "test"}),
    ],
)
def test_splits_are_found_under_their_usual_names(names: tuple[str, ...], splits: set[str], tmp_path: Path) -> None:
    folders, notes = find_splits(fill(tmp_path, *names))
    assert folders.keys() == splits
    assert all(path.parent == tmp_path for path in folders.values())
    assert bool(notes) == any("docs" in note for note in notes) == (names[-1] == "docs/x.txt")


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    assert find_splits(fill(tmp_path, "train/1.png", "plane/1.png", "car/1.png")) == ({"train": tmp_path}, [])
    assert find_splits(fill(tmp_path / "train", "1.png"))[0] == {"train": tmp_path / "train"}


@pytest.mark.parametrize("names", [("val/a/1.png", "test/a/1.png"), ("train/a/1.png", "val/a/1.png", "valid/a/1.png")])
def test_splits_that_cannot_be_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="val"):
        find_splits(fill(tmp_path, *names))


def test_what_cannot_be_classes_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    for bad in (tmp_path / "a", tmp_path / "nowhere", tmp_path / "a" / "1.png"):
        with pytest.raises(UserError, match="fewer than two class folders"):
            list_classes(bad)
    with pytest.raises(UserError, match="b"):
        list_classes(tmp_path, classes=["a", "cow"])
    fill(tmp_path, "phone/x.heic")
    with pytest.raises(UserError, match=r"phone.*1 \.heic"):
        list_classes(tmp_path)
    with pytest.raises(UserError, match=r"phone.*1 \.heic"):
        list_images(tmp_path / "phone")


def test_classes_that_are_probably_one_are_named(tmp_path: Path) -> None:
    notes = list_classes(fill(tmp_path, "cat/1.png", "Cat/1.png", "dog/1.png")).notes
    assert any("Cat" in note and "cat" in note for note in notes)


def test_inputs_are_files_and_folders_in_the_order_given(tmp_path: Path) -> None:
    fill(tmp_path, "z.png", "folder/b/2.png", "folder/1.png", "folder/.x.png")
    pairs, notes = input_images([tmp_path / "z.png", tmp_path / "folder"])
    assert [name.as_posix() for _, name in pairs] == ["z.png", "1.png", "b/2.png"]
    assert len(notes) == 1
    with pytest.raises(UserError, match="nowhere"):
        input_images([tmp_path / "nowhere"])
