"""Reads a folder in Pascal VOC form: Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val,test}.txt.

Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/. VOC counts pixels from 1 and includes the last one,
so xmin 1, xmax 10 is a box of 10 pixels, from 0 to 10. Some tools write the same files counting from 0; where one
coordinate of a folder is 0, all of it is read so, and that is said.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from core import images
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

SPLITS = ("train", "val", "test")
EDGES = ("xmin", "ymin", "xmax", "ymax")


class Object(NamedTuple):
    """An <object> as it stands in the file: which one, class, the four edges, and whether it is difficult."""

    where: str
    name: str
    edges: list[float | str]
    difficult: bool


class Parsed(NamedTuple):
    """An annotation file as it stands: its picture, the stated size, its objects."""

    file: Path
    picture: Path
    stated: tuple[int | None, int | None]
    objects: list[Object]


def read(root: Path) -> Annotations:
    """All splits of a folder; without ImageSets/Main everything is one split, named all."""
    found = Annotations("voc")
    stems = split_names(root, found)
    parsed = {name: [p for stem in names if (p := parse(root, stem, found))] for name, names in stems.items()}
    everything = [each for split in parsed.values() for each in split]
    edges = [edge for each in everything for item in each.objects for edge in item.edges[:2] if isinstance(edge, float)]
    origin = 0 if 0.0 in edges else 1
    found.notes.append(
        "boxes are read as Pascal VOC's, counted from pixel 1"
        if origin
        else "boxes are read as counted from pixel 0, as one of them begins there"
    )
    learned = parsed.get("train", everything)
    found.classes = sorted({item.name for each in learned for item in each.objects if item.name})
    sizes = picture_sizes([each.picture for each in everything])
    size_of = dict(zip((each.file for each in everything), sizes, strict=True))
    for name, split in parsed.items():
        pictures = (finish(each, size_of[each.file], origin, found) for each in split)
        found.splits[name] = [picture for picture in pictures if picture is not None]
    return found


def split_names(root: Path, found: Annotations) -> dict[str, list[str]]:
    """The pictures of each split by name. Raises UserError where no split names a picture."""
    lists = {name: root / "ImageSets" / "Main" / f"{name}.txt" for name in SPLITS}
    lists = {name: path for name, path in lists.items() if path.is_file()}
    if "train" not in lists:
        stems = sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
        if not stems:
            raise UserError("no annotations", root / "Annotations", "put a file NAME.xml for each picture there")
        return {"all": stems}
    result: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for name, path in lists.items():
        result[name] = []
        for number, stem in enumerate(lines_of(path), 1):
            if stem in seen:
                found.add_fault(path, f"line {number}", f"{stem} stands in {seen[stem]} already")
            else:
                seen[stem] = f"{name}.txt"
                result[name].append(stem)
    return result


def lines_of(path: Path) -> Iterator[str]:
    """The first word of each line. Raises UserError for a file that is no text."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError("not a readable list of pictures", f"{path} ({error})", "write one name a line") from error
    return (line.split()[0] for line in text.splitlines() if line.split())


def parse(root: Path, stem: str, found: Annotations) -> Parsed | None:
    """The annotation file of a picture as it stands; None, and a fault, where there is no usable one."""
    file = inside(root / "Annotations", f"{stem}.xml")
    if file is None:
        found.add_fault(root / "ImageSets" / "Main", stem, "the name leads out of the folder")
        return None
    try:
        tree = ElementTree.parse(file).getroot()
    except FileNotFoundError:
        found.add_fault(file, stem, "the annotation file is missing")
        return None
    except (ElementTree.ParseError, OSError, ValueError) as error:
        found.add_fault(file, stem, f"not readable XML ({error})")
        return None
    named = (tree.findtext("filename") or "").strip()
    picture = picture_path(root, named, stem)
    if picture is None:
        found.add_fault(file, stem, f"its picture {named!r} lies outside the folder")
        return None
    stated = tuple(whole(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    objects = [
        Object(
            where=f"{stem}, object {number}",
            name=(element.findtext("name") or "").strip(),
            edges=[number_of(element.findtext(f"bndbox/{edge}")) for edge in EDGES],
            difficult=(element.findtext("difficult") or "").strip() == "1",
        )
        for number, element in enumerate(tree.iterfind("object"), 1)
    ]
    return Parsed(file, picture, (stated[0], stated[1]), objects)


def picture_path(root: Path, named: str, stem: str) -> Path | None:
    """The picture that belongs to an annotation: what it names, else the file of its own name; None if outside."""
    folder = root / "JPEGImages"
    if named:
        path = inside(folder, named)
        if path is None or path.is_file():
            return path
    beside = (folder / f"{stem}{suffix}" for suffix in (".jpg", *sorted(images.SUFFIXES)))
    return next((path for path in beside if path.is_file()), folder / (named or f"{stem}.jpg"))


def finish(parsed: Parsed, size: tuple[int, int] | str, origin: int, found: Annotations) -> Picture | None:
    """The picture with its good boxes; faults are noted."""
    stem = parsed.file.stem
    if isinstance(size, str):
        found.add_fault(parsed.file, stem, f"{size}: {parsed.picture}")
        return None
    lie = size_lie(parsed.stated, size)
    if lie is not None:
        found.add_fault(parsed.file, stem, lie)
        return None
    objects = []
    for item in parsed.objects:
        # Counted from 1 with the last pixel included, the left edge of pixel xmin is at xmin - 1.
        corners = [
            edge - origin if isinstance(edge, float) and number < 2 else edge for number, edge in enumerate(item.edges)
        ]
        box = checked_box(corners, *size)
        if isinstance(box, str):
            found.add_fault(parsed.file, item.where, box)
        elif item.name not in found.classes:
            what = f"unknown category {item.name!r}" if item.name else "it has no name"
            found.add_fault(parsed.file, item.where, f"{what}; the training pictures have {', '.join(found.classes)}")
        else:
            objects.append((box, found.classes.index(item.name), item.difficult))
    return make_picture(parsed.picture, stem, size, objects)


def number_of(text: str | None) -> float | str:
    """A coordinate; the text itself where it is none."""
    try:
        return float(text or "")
    except ValueError:
        return text or "missing"


def whole(text: str | None) -> int | None:
    """A stated width or height; None where it is absent, -1 where it is no number."""
    if text is None:
        return None
    return int(text) if text.strip().isdecimal() and len(text) < 12 else -1
