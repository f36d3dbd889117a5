"""Reads a folder in Pascal VOC form: Annotations/**/*.xml, JPEGImages/, ImageSets/Main/{train,val,trainval,test}.txt.

Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/. VOC counts pixels from 1 and includes the last one,
so xmin 1, xmax 10 is a box of 10 pixels, from 0 to 10. Some tools write the same files counting from 0; where one
coordinate of a folder is 0, all of it is read so, and a note says it.
"""

import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.vision.folders import SUFFIXES
from projects.detection.annotations import AnnotatedImage, Annotations, ImageObjects, class_name_fault, true_or_false
from projects.detection.image_files import (
    CheckedImage,
    check_images,
    number_of,
    path_inside,
    read_regular,
    visible_files,
    wrong_size,
)
from projects.detection.voc_lists import read_splits

_MAX_XML_BYTES = 16 << 20
_EDGES = ("xmin", "ymin", "xmax", "ymax")


class _Object(NamedTuple):
    """An <object> as it stands in the file: which one, class, the four edges, and <difficult>."""

    where: str
    name: str
    edges: Sequence[float | str]
    difficult: str | None


class _Parsed(NamedTuple):
    """An annotation file as it stands: its name, <filename>, the stated size, its objects."""

    file: Path
    stem: str
    filename: str
    stated: tuple[str | None, str | None]
    objects: Sequence[_Object]


def read(root: Path, clip: bool = False) -> Annotations:
    """All splits of a folder; without lists everything is one split, named all. clip: see Annotations."""
    annotations = Annotations("voc", clip)
    folder = root / "Annotations"
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in visible_files(folder)
        if path.suffix.lower() == ".xml"
    }
    if not files:
        raise UserError("no annotations", folder, "put a file NAME.xml for each image there")
    splits = read_splits(root, files, annotations)
    parsed = {
        name: [p for stem in stems if (p := _parse(files[stem], stem, annotations))] for name, stems in splits.items()
    }
    everything = [each for split in parsed.values() for each in split]
    origin = _origin(everything, annotations)
    learned = parsed.get("train", everything)
    names = {item.name for each in learned for item in each.objects}
    annotations.classes = sorted(name for name in names if class_name_fault(name) is None)
    paths = _image_paths(root, everything, annotations)
    checked = dict(zip(paths, check_images(list(paths.values())), strict=True))
    for name, split in parsed.items():
        images = (_finish(each, checked[each.file], origin, annotations) for each in split if each.file in checked)
        annotations.splits[name] = [image for image in images if image is not None]
    return annotations


def _parse(file: Path, stem: str, annotations: Annotations) -> _Parsed | None:
    """An annotation file as it stands; None, and a fault, where it cannot be read."""
    try:
        tree = ElementTree.fromstring(read_regular(file, _MAX_XML_BYTES))
    except (ElementTree.ParseError, LookupError, OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        annotations.add_fault(file, stem, f"not readable XML ({reason})")
        return None
    objects = [
        _Object(
            where=f"{stem}, object {number}",
            name=(element.findtext("name") or "").strip(),
            edges=[_edge(element.findtext(f"bndbox/{edge}")) for edge in _EDGES],
            difficult=element.findtext("difficult"),
        )
        for number, element in enumerate(tree.iterfind("object"), 1)
    ]
    stated = tree.findtext("size/width"), tree.findtext("size/height")
    return _Parsed(file, stem, (tree.findtext("filename") or "").strip(), stated, objects)


def _edge(text: str | None) -> float | str:
    """A coordinate; the text itself where it is none."""
    number = number_of(text)
    return number if number is not None else text or "missing"


def _origin(parsed: Sequence[_Parsed], annotations: Annotations) -> int:
    """The number of the first pixel, 0 or 1, with a note."""
    from_zero = any(edge == 0.0 for each in parsed for item in each.objects for edge in item.edges[:2])
    annotations.notes.append(
        "boxes are read as counted from pixel 0, as one of them begins there"
        if from_zero
        else "boxes are read as Pascal VOC's, counted from pixel 1"
    )
    return 0 if from_zero else 1


def _image_paths(root: Path, parsed: Sequence[_Parsed], annotations: Annotations) -> dict[Path, Path]:
    """The image of each annotation file: that of its own name, else the one that <filename> names.

    An annotation whose image belongs to another annotation, or is not there, gets a fault and no path.
    """
    folder = root / "JPEGImages"
    images = [path for path in visible_files(folder) if path.suffix.lower() in SUFFIXES]
    own_names = _by_name(images, folder)
    num_stems = Counter(Path(each.stem).name for each in parsed)
    paths: dict[Path, Path] = {}
    renamed: list[str] = []
    for each in parsed:
        name = Path(each.stem).name
        own = own_names.get(each.stem, own_names.get(name, []) if num_stems[name] == 1 else [])
        if own:
            named = [path for path in own if path.name == Path(each.filename.replace("\\", "/")).name]
            paths[each.file] = (named or own)[0]
            if each.filename and not named and Path(each.filename.replace("\\", "/")).stem != name:
                renamed.append(f"{each.file.name} says {each.filename}")
    if renamed:
        more = "" if len(renamed) == 1 else f" and {len(renamed) - 1:,} more"
        annotations.notes.append(
            f"the image with an annotation's own name is used, not its <filename>: {renamed[0]}{more}"
        )
    _add_named(folder, [each for each in parsed if each.file not in paths], paths, annotations)
    unused = len(set(images) - set(paths.values()))
    if unused:
        annotations.notes.append(f"{unused:,} images in {folder} have no annotation that is used")
    return {each.file: paths[each.file] for each in parsed if each.file in paths}


def _by_name(images: Sequence[Path], folder: Path) -> Mapping[str, list[Path]]:
    """Images by their path below the folder without its ending, and by their name alone; JPEG files come first."""
    result: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(images, key=lambda path: (path.suffix.lower() not in (".jpg", ".jpeg"), path)):
        key = path.relative_to(folder).with_suffix("")
        for name in {key.as_posix(), key.name}:
            result[name].append(path)
    return result


def _add_named(folder: Path, parsed: Sequence[_Parsed], paths: dict[Path, Path], annotations: Annotations) -> None:
    """Adds the images that annotations without an image of their own name claim by <filename>."""
    owners = {path.resolve(): file for file, path in paths.items()}
    claims = {each.file: path_inside(folder, each.filename or f"{each.stem}.jpg") for each in parsed}
    counted = Counter(path.resolve() for path in claims.values() if path is not None)
    for each in parsed:
        path = claims[each.file]
        if path is None:
            annotations.add_fault(each.file, each.stem, f"its image {each.filename[:200]!r} lies outside the folder")
        elif path.resolve() in owners or counted[path.resolve()] > 1:
            owner = owners.get(path.resolve())
            whose = owner.name if owner is not None else f"{counted[path.resolve()]} annotations"
            annotations.add_fault(each.file, each.stem, f"its image {path} belongs to {whose}")
        else:
            paths[each.file] = path


def _finish(parsed: _Parsed, image: CheckedImage | str, origin: int, annotations: Annotations) -> AnnotatedImage | None:
    """The image with its boxes; faults are noted. None where it cannot be used."""
    fault = image if isinstance(image, str) else wrong_size(parsed.stated, image)
    if isinstance(image, str) or fault is not None:
        annotations.add_fault(parsed.file, parsed.stem, str(fault))
        return None
    objects = ImageObjects(annotations, parsed.file, image)
    for item in parsed.objects:
        # Counted from 1 with the last pixel included, the left edge of pixel xmin is at xmin - 1.
        corners = [
            edge - origin if isinstance(edge, float) and number < 2 else edge for number, edge in enumerate(item.edges)
        ]
        label = annotations.classes.index(item.name) if item.name in annotations.classes else None
        if label is None:
            what = class_name_fault(item.name) or f"unknown category {item.name!r}"
            known = ", ".join(annotations.classes)
            annotations.add_fault(parsed.file, item.where, f"{what}; the training images have {known}")
        difficult = true_or_false(item.difficult)
        if difficult is None:
            annotations.add_fault(parsed.file, item.where, f"difficult is {item.difficult!r}, it should be 0 or 1")
        objects.add(item.where, corners, label, ignored=difficult is not False)
    return objects.finish(parsed.stem)
