"""Reads a folder in COCO form: annotations/instances_{train,val,test}*.json, or SPLIT/_annotations.coco.json.

Lin et al. 2014 (arXiv 1405.0312), https://cocodataset.org/#format-data. A box is [x, y, width, height] in pixels from
the upper left corner of the image, counted from 0. The classes are the categories that boxes of the training file
have, in the order of their ids. An id is a whole number or a text; "3" and 3 are the same.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.vision.folders import SPLIT_NAMES, is_hidden
from projects.detection.annotations import AnnotatedImage, Annotations, ImageObjects, class_name_fault, true_or_false
from projects.detection.image_files import CheckedImage, check_images, path_inside, read_regular, wrong_size

_MAX_JSON_BYTES = 1 << 30
_ONE_FILE = "_annotations.coco.json"
_OTHER_TASKS = ("captions", "person_keypoints", "image_info", "panoptic", "stuff")
_SPLIT_OF = {word: split for split, words in SPLIT_NAMES.items() for word in words}
_Table = list[dict[str, Any]]


def find_files(root: Path) -> dict[str, Path]:
    """Annotation files by split; a single one that names none is the split all. Raises UserError for two of a split."""
    paths = sorted((root / "annotations").glob("*.json")) + sorted(root.glob(f"*/{_ONE_FILE}"))
    paths = [path for path in paths if not is_hidden(path.name) and not is_hidden(path.parent.name)]
    paths = [path for path in paths if not path.name.startswith(_OTHER_TASKS)]
    files: dict[str, Path] = {}
    for path in paths:
        text = path.parent.name if path.name == _ONE_FILE else path.stem
        words = re.findall(r"[a-z]+", text.lower().removeprefix("instances"))
        split = next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), None)
        if split is None and len(paths) == 1:
            split = "all"
        if split is None:
            raise UserError("an annotation file of no split", path, "put train, val or test into its name")
        if split in files:
            raise UserError("two annotation files of a split", f"{files[split]} and {path}", "remove one")
        files[split] = path
    if files and not {"train", "all"} & set(files):
        raise UserError("no annotations to train on", ", ".join(map(str, files.values())), "add instances_train.json")
    return files


def read(root: Path, files: dict[str, Path], clip: bool = False) -> Annotations:
    """All splits of a folder. clip: see Annotations."""
    annotations = Annotations("coco", clip)
    seen: dict[Path, str] = {}
    for split in ("train", "all", "val", "test"):  # the first decides what classes there are
        if split in files:
            annotations.splits[split] = _read_split(root, split, files[split], annotations, seen)
    return annotations


def _read_split(
    root: Path, split: str, file: Path, annotations: Annotations, seen: dict[Path, str]
) -> list[AnnotatedImage]:
    """The images of one annotation file; faults are noted. seen: images of other splits."""
    data = _load(file)
    labels = _read_categories(data, file, annotations)
    entries = _read_images(root, split, file, data, annotations, seen)
    objects: dict[str, ImageObjects] = {}  # of images without a fault
    checked = check_images([path for _, path in entries.values()])
    for (number, (entry, _)), image in zip(entries.items(), checked, strict=True):
        if isinstance(image, CheckedImage) and (fault := wrong_size((entry.get("width"), entry.get("height")), image)):
            annotations.add_fault(file, f"image {number}", fault)
        elif isinstance(image, CheckedImage):
            objects[number] = ImageObjects(annotations, file, image)
        else:
            annotations.add_fault(file, f"image {number}", image)
    ids: set[str] = set()
    for index, entry in enumerate(_table(data, "annotations", file)):
        name, owner = _id(entry.get("id")), _id(entry.get("image_id"))
        where = f"annotation {name or f'number {index}, without id'}"
        if owner not in entries:
            annotations.add_fault(file, where, f"unknown image_id {_shown(entry.get('image_id'))}")
        elif owner in objects:
            ignored = _is_ignored(entry, where, file, annotations, twice=name in ids)
            category = _id(entry.get("category_id"))
            if category not in labels:
                annotations.add_fault(file, where, f"unknown category_id {_shown(entry.get('category_id'))}")
            objects[owner].add(where, _corners(entry.get("bbox")), labels.get(category or ""), ignored)
        if name is not None:
            ids.add(name)
    images = (collected.finish(f"image {number}") for number, collected in objects.items())
    return [image for image in images if image is not None]


def _is_ignored(entry: dict[str, Any], where: str, file: Path, annotations: Annotations, *, twice: bool) -> bool:
    """Whether a box is not to be counted: a crowd, or one whose id or iscrowd is faulty."""
    crowd = true_or_false(entry.get("iscrowd"))
    if crowd is None:
        annotations.add_fault(file, where, f"iscrowd is {_shown(entry['iscrowd'])}, it should be 0 or 1")
    if twice:
        annotations.add_fault(file, where, "the id stands twice")
    return crowd is not False or twice


def _load(file: Path) -> dict[str, Any]:
    """The file's object. Raises UserError, naming the file."""
    try:
        data = json.loads(read_regular(file, _MAX_JSON_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("not a readable annotation file", f"{file} ({error})", "write it again") from error
    if not isinstance(data, dict):
        raise UserError("not a COCO annotation file", f"{file} (not an object)", "write it again")
    return data


def _table(data: dict[str, Any], name: str, file: Path) -> _Table:
    """One of the file's lists of objects. Raises UserError where it is something else."""
    rows = data.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError("not a COCO annotation file", f"{file} ({name} is not a list of objects)", "write it again")
    return rows


def _read_categories(data: dict[str, Any], file: Path, annotations: Annotations) -> dict[str, int | None]:
    """Labels by category id; the first file decides on the classes, later ones go by name.

    None stands for a category whose fault has been noted. Categories that no box has do not count.
    """
    names: dict[str, str] = {}
    labels: dict[str, int | None] = {}
    used = {_id(entry.get("category_id")) for entry in _table(data, "annotations", file)}
    for entry in _table(data, "categories", file):
        number, name = _id(entry.get("id")), entry.get("name")
        where = f"category {_shown(entry.get('id'))}"
        if number is None or not isinstance(name, str):
            annotations.add_fault(file, where, "a category needs an id and a name")
        elif number in names or number in labels:
            annotations.add_fault(file, where, f"the id stands twice, here for {name[:200]!r}")
        elif number in used:
            fault = class_name_fault(name)
            if name in names.values():
                fault = f"another category is named {name[:200]!r} too"
            if fault is not None:
                annotations.add_fault(file, where, fault)
                labels[number] = None
            else:
                names[number] = name
    if not annotations.classes:
        annotations.classes = [names[number] for number in sorted(names, key=_order)]
    known = annotations.classes
    for number, name in names.items():
        labels[number] = known.index(name) if name in known else None
        if name not in known:
            what = f"the training images have only {', '.join(known)}"
            annotations.add_fault(file, f"category {name!r}", what)
    return labels


def _read_images(
    root: Path, split: str, file: Path, data: dict[str, Any], annotations: Annotations, seen: dict[Path, str]
) -> dict[str, tuple[dict[str, Any], Path]]:
    """Entries and paths of images by id."""
    folders = _image_folders(root, split, file)
    entries: dict[str, tuple[dict[str, Any], Path]] = {}
    for index, entry in enumerate(_table(data, "images", file)):
        number, name = _id(entry.get("id")), entry.get("file_name")
        where = f"image {number or f'number {index}, without id'}"
        if number is None or not isinstance(name, str):
            annotations.add_fault(file, where, "an image needs an id (a whole number or a text) and a file_name")
            continue
        if number in entries:
            annotations.add_fault(file, where, "the id stands twice")
            continue
        paths = [path for folder in folders if (path := path_inside(folder, name)) is not None]
        if not paths:
            annotations.add_fault(file, where, f"its file_name {name[:200]!r} lies outside the folder")
            continue
        path = next((path for path in paths if path.is_file()), paths[0])
        if path in seen:
            annotations.add_fault(file, where, f"{path} stands in {seen[path]} already")
            continue
        seen[path] = f"{split} (image {number})"
        entries[number] = (entry, path)
    return entries


def _image_folders(root: Path, split: str, file: Path) -> list[Path]:
    """Where images of a split may lie: beside the file, or in a folder named like the split or its file."""
    if file.name == _ONE_FILE:
        return [file.parent]
    name = file.stem.removeprefix("instances_")
    candidates = [root / "images" / name, root / name, root / "images" / split, root / split, root / "images", root]
    return [folder for folder in candidates if folder.is_dir()]


def _corners(bbox: Any) -> Sequence[Any]:
    """x1, y1, x2, y2 of [x, y, width, height]; anything else as it is, to be refused."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return [_shown(bbox)]
    if all(isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 for value in bbox):
        x, y, width, height = bbox
        return [x, y, x + width, y + height]
    return bbox


def _id(value: Any) -> str | None:
    """An id as text: a whole number, or a text that can be written; None for anything else."""
    if isinstance(value, str):
        return value if class_name_fault(value) is None else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _order(number: str) -> tuple[bool, int, str]:
    """Sorts ids: numbers by value, before texts."""
    whole = number.isascii() and number.removeprefix("-").isdigit()
    return (not whole, int(number) if whole else 0, number)


def _shown(value: Any) -> str:
    """A value in a message, shortened."""
    return repr(value)[:200]
