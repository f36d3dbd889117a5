"""Reads a folder in COCO form: annotations/instances_{train,val,test}*.json, or SPLIT/_annotations.coco.json.

Lin et al. 2014 (arXiv 1405.0312), https://cocodataset.org/#format-data. A box is [x, y, width, height] from the left
upper corner, counted from 0. The classes are the categories of the training file in the order of their ids.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from projects.detection.annotations import (
    Annotations,
    Picture,
    checked_box,
    inside,
    make_picture,
    picture_sizes,
    size_lie,
)

SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
Table = list[dict[str, Any]]
Object = tuple[Any, int, bool]  # box, label, uncounted


def find_files(root: Path) -> dict[str, Path]:
    """Annotation files by split; a single one that names none is the split all. Raises UserError for two of a split."""
    paths = sorted((root / "annotations").glob("*.json")) + sorted(root.glob("*/_annotations.coco.json"))
    found: dict[str, Path] = {}
    for path in paths:
        text = path.parent.name if path.name == "_annotations.coco.json" else path.stem
        words = re.findall(r"[a-z]+", text.lower().removeprefix("instances"))
        split = next((SPLIT_OF[word] for word in words if word in SPLIT_OF), None)
        if path.name.startswith(("captions", "person_keypoints", "image_info", "panoptic", "stuff")):
            continue
        if split is None and len(paths) == 1:
            split = "all"
        if split is None:
            raise UserError("an annotation file of no split", path, "put train, val or test into its name")
        if split in found:
            raise UserError("two annotation files of a split", f"{found[split]} and {path}", "remove one")
        found[split] = path
    if found and not {"train", "all"} & set(found):
        raise UserError("no annotations to train on", ", ".join(map(str, found.values())), "add instances_train.json")
    return found


def read(root: Path, files: dict[str, Path]) -> Annotations:
    """All splits of a folder."""
    found = Annotations("coco")
    seen: dict[Path, str] = {}
    for split in ("train", "all", "val", "test"):  # the first decides what classes there are
        if split in files:
            found.splits[split] = read_split(root, split, files[split], found, seen)
    return found


def read_split(root: Path, split: str, file: Path, found: Annotations, seen: dict[Path, str]) -> list[Picture]:
    """The pictures of one annotation file; faults are noted. seen: pictures of other splits."""
    data = load(file)
    labels = read_categories(data, file, found)
    entries = read_images(root, split, file, data, found, seen)
    good: dict[Any, tuple[int, int]] = {}  # the real width and height of pictures without a fault
    sizes = picture_sizes([path for _, path in entries.values()])
    for (number, (entry, path)), size in zip(entries.items(), sizes, strict=True):
        if isinstance(size, str):
            found.add_fault(file, f"image {number}", f"{size}: {path}")
        elif lie := size_lie((entry.get("width"), entry.get("height")), size):
            found.add_fault(file, f"image {number}", lie)
        else:
            good[number] = size
    objects: dict[Any, list[Object]] = {number: [] for number in good}
    ids: set[Any] = set()
    for index, entry in enumerate(table(data, "annotations", file)):
        where = f"annotation {entry.get('id', f'number {index}, without id')}"
        number, name = hashable(entry.get("image_id")), hashable(entry.get("id"))
        label = labels.get(hashable(entry.get("category_id")))
        if name is not None and name in ids:
            found.add_fault(file, where, "the id stands twice")
        elif number not in entries:
            found.add_fault(file, where, f"unknown image_id {entry.get('image_id')!r}")
        elif label is None:
            found.add_fault(file, where, f"unknown category_id {entry.get('category_id')!r}")
        elif number in good:
            box = checked_box(corners_of(entry.get("bbox")), *good[number])
            if isinstance(box, str):
                found.add_fault(file, where, box)
            else:
                objects[number].append((box, label, entry.get("iscrowd", 0) == 1))
        ids.add(name)
    return [make_picture(entries[number][1], f"image {number}", good[number], objects[number]) for number in good]


def load(file: Path) -> dict[str, Any]:
    """The file's object. Raises UserError, naming the file."""
    try:
        data = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("not a readable annotation file", f"{file} ({error})", "write it again") from error
    if not isinstance(data, dict):
        raise UserError("not a COCO annotation file", f"{file} (not an object)", "write it again")
    return data


def table(data: dict[str, Any], name: str, file: Path) -> Table:
    """One of the file's lists of objects. Raises UserError where it is something else."""
    rows = data.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError("not a COCO annotation file", f"{file} ({name} is not a list of objects)", "write it again")
    return rows


def read_categories(data: dict[str, Any], file: Path, found: Annotations) -> dict[Any, int]:
    """Labels by category id; the first file decides on the classes, later ones go by name."""
    categories: dict[int, str] = {}
    for entry in table(data, "categories", file):
        number, name = entry.get("id"), entry.get("name")
        where = f"category {number!r}"
        if type(number) is not int or not isinstance(name, str) or not name:
            found.add_fault(file, where, "a category needs a whole number as id, and a name")
        elif number in categories or name in categories.values():
            found.add_fault(file, where, f"the id or the name {name!r} stands twice")
        else:
            categories[number] = name
    used = {hashable(entry.get("category_id")) for entry in table(data, "annotations", file)}
    names = [categories[number] for number in sorted(categories) if number in used]
    if not found.classes:
        found.classes = names
    for name in sorted(set(names) - set(found.classes)):
        found.add_fault(file, f"category {name!r}", f"the training pictures have only {', '.join(found.classes)}")
    return {number: found.classes.index(name) for number, name in categories.items() if name in found.classes}


def read_images(
    root: Path, split: str, file: Path, data: dict[str, Any], found: Annotations, seen: dict[Path, str]
) -> dict[int, tuple[dict[str, Any], Path]]:
    """Entries and paths of pictures by id."""
    folders = picture_folders(root, split, file)
    entries: dict[int, tuple[dict[str, Any], Path]] = {}
    for index, entry in enumerate(table(data, "images", file)):
        number, name = entry.get("id"), entry.get("file_name")
        where = f"image {entry.get('id', f'number {index}, without id')}"
        if type(number) is not int or not isinstance(name, str):
            found.add_fault(file, where, "an image needs a whole number as id, and a file_name")
            continue
        if number in entries:
            found.add_fault(file, where, "the id stands twice")
            continue
        candidates = [inside(folder, name) for folder in folders]
        if None in candidates:
            found.add_fault(file, where, f"its file_name {name!r} lies outside the folder")
            continue
        paths = [path for path in candidates if path is not None]
        path = next((path for path in paths if path.is_file()), paths[0])
        if path in seen:
            found.add_fault(file, where, f"{path} stands in {seen[path]} already")
            continue
        seen[path] = f"{split} (image {number})"
        entries[number] = (entry, path)
    return entries


def picture_folders(root: Path, split: str, file: Path) -> list[Path]:
    """Where pictures of a split may lie: beside the file, or in a folder named like the split or its file."""
    if file.name == "_annotations.coco.json":
        return [file.parent]
    name = file.stem.removeprefix("instances_")
    candidates = [root / "images" / name, root / name, root / "images" / split, root / split, root / "images", root]
    return [folder for folder in candidates if folder.is_dir()]


def corners_of(bbox: Any) -> Sequence[Any]:
    """x1, y1, x2, y2 of [x, y, width, height]; anything else as it is, to be refused."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return [bbox]
    if all(isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 for value in bbox):
        x, y, width, height = bbox
        return [x, y, x + width, y + height]
    return bbox


def hashable(value: Any) -> Any:
    """A value that may be looked up; lists and objects, which are no ids, become None."""
    return None if isinstance(value, list | dict) else value
