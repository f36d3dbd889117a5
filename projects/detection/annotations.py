"""Folders of pictures with boxes: Pascal VOC or COCO, recognized by what is in them, and every fault by file and id.

Boxes are x1, y1, x2, y2 in pixels from the left upper corner of the picture to the edges of the box, so that x2 - x1
is its width. A box that is not to be counted (COCO's crowd, VOC's difficult) is neither learned nor evaluated.
`python -m projects.detection.annotations DIR` looks a folder through and prints all of its faults.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core import images
from core.config import Parser
from core.errors import UserError, run_command

SLACK_PIXELS = 1.0  # how far a box may reach over the border, as rounding in annotation tools lets it


@dataclass(frozen=True)
class Picture:
    """A picture on the disk and what is in it.

    name: what messages call it; boxes float32 [num, 4]; labels int64 [num]; uncounted bool [num].
    """

    path: Path
    name: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    uncounted: NDArray[np.bool_]


@dataclass(frozen=True)
class Fault:
    """Something wrong: in which file, at which picture or object of it, what."""

    file: Path
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: {self.what}"


@dataclass
class Annotations:
    """What was read of a folder: classes, pictures by split (train, val, test), faults, and what a user should know."""

    form: Literal["voc", "coco"]
    classes: list[str] = field(default_factory=list)
    splits: dict[str, list[Picture]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_fault(self, file: Path, where: str, what: str) -> None:
        """Notes a fault; what it is about is left out."""
        self.faults.append(Fault(file, where, what))


def read_folder(root: Path, on_fault: Literal["stop", "skip"] = "stop") -> Annotations:
    """The annotations of a folder in either form.

    Raises UserError for a folder in neither form, for the first fault (naming how many there are) unless they are to be
    skipped, and where nothing is left.
    """
    found = read(root)
    if found.faults and on_fault == "stop":
        more = f" ({len(found.faults) - 1} more faults)" if len(found.faults) > 1 else ""
        todo = f"repair it, or --on-fault skip; python -m projects.detection.annotations {root} shows all"
        raise UserError("faulty annotation", f"{found.faults[0]}{more}", todo)
    if not any(found.splits.values()):
        raise UserError("no annotated pictures", root, "give a folder in Pascal VOC or COCO form")
    if not found.classes:
        raise UserError("no boxes in any annotation", root, "annotate some pictures")
    return found


def read(root: Path) -> Annotations:
    """The annotations of a folder with all faults in a list. Raises UserError for a folder in neither form."""
    from projects.detection import coco, voc

    files = coco.find_files(root)
    if files:
        return coco.read(root, files)
    if (root / "Annotations").is_dir():
        return voc.read(root)
    todo = "give one with Annotations/*.xml and JPEGImages/, or with annotations/instances_*.json"
    raise UserError("neither Pascal VOC nor COCO", root, todo)


def checked_box(corners: Sequence[Any], width: float, height: float) -> tuple[float, float, float, float] | str:
    """x1, y1, x2, y2 within the picture, or what is wrong with them."""
    numbers = [float(v) for v in corners if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e300]
    if len(corners) != 4 or len(numbers) != 4 or not all(math.isfinite(v) for v in numbers):
        return f"the box {list(corners)} is not four finite numbers"
    x1, y1, x2, y2 = numbers
    shown = f"{x1:g} {y1:g} {x2:g} {y2:g}"
    if x2 <= x1 or y2 <= y1:
        return f"the box {shown} has no area (x2 ≤ x1 or y2 ≤ y1)"
    if x1 < -SLACK_PIXELS or y1 < -SLACK_PIXELS or x2 > width + SLACK_PIXELS or y2 > height + SLACK_PIXELS:
        return f"the box {shown} lies outside the picture of {width:g}×{height:g} pixels"
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def picture_size(path: Path) -> tuple[int, int] | str:
    """Width and height of a picture file as it is seen (turned upright), or what is wrong with it; nothing is
    decoded."""
    try:
        with Image.open(path, formats=images.FORMATS) as opened:
            width, height = opened.size
            turned = opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return "the picture is missing" if isinstance(error, FileNotFoundError) else f"not a readable picture ({error})"
    return (height, width) if turned else (width, height)


def picture_sizes(paths: Sequence[Path]) -> list[tuple[int, int] | str]:
    """picture_size of many files, in their order."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(picture_size, paths))


def size_lie(stated: tuple[Any, Any], real: tuple[int, int]) -> str | None:
    """What is wrong with a stated width and height; None where they are right or absent."""
    if stated == (None, None) or stated == real:
        return None
    return f"width and height are stated as {stated[0]}×{stated[1]}, the picture has {real[0]}×{real[1]}"


def inside(root: Path, name: str) -> Path | None:
    """The path of a file that an annotation names, or None where it leads out of the folder."""
    path = root / name
    if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    return path if path.resolve().is_relative_to(root.resolve()) else None


def make_picture(path: Path, name: str, size: tuple[int, int], objects: Sequence[tuple[Any, int, bool]]) -> Picture:
    """A picture from its checked objects: (box, label, uncounted)."""
    boxes = np.asarray([box for box, _, _ in objects], dtype=np.float32).reshape(-1, 4)
    labels = np.asarray([label for _, label, _ in objects], dtype=np.int64)
    uncounted = np.asarray([flag for _, _, flag in objects], dtype=np.bool_)
    return Picture(path, name, size[0], size[1], boxes, labels, uncounted)


def counts(found: Annotations) -> Mapping[str, str]:
    """A line for each split: pictures, boxes, boxes by class."""
    lines: dict[str, str] = {}
    for split, pictures in found.splits.items():
        per_class = np.zeros(len(found.classes), dtype=np.int64)
        for picture in pictures:
            np.add.at(per_class, picture.labels, 1)
        shown = ", ".join(f"{name} {num:,}" for name, num in zip(found.classes, per_class, strict=True))
        lines[split] = f"{len(pictures):,} pictures, {per_class.sum():,} boxes: {shown}"
    return lines


def main() -> None:
    """The command line."""
    parser = Parser(prog="python -m projects.detection.annotations", allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder in Pascal VOC or COCO form")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    root = parser.parse_args().folder
    found = read(root)
    for split, line in counts(found).items():
        print(f"{split:<6} {line}")
    for line in [*found.notes, *map(str, found.faults)]:
        print(line)
    if found.faults:
        raise UserError("faulty annotations", f"{len(found.faults)} in {root}", "see the lines above")
    print("no faults")


if __name__ == "__main__":
    run_command(main)
