"""Annotated images as voc.py and coco.py give them, and the checks that both formats share.

A box is x1, y1, x2, y2 in pixels of the image as it is seen (upright), from its upper left corner to the edges of the
box, so that x2 - x1 is its width. An ignored box is neither learned nor counted in the metrics: COCO's crowd, VOC's
difficult, and, where faults are skipped, an object whose annotation is faulty. If such an object were left out instead,
it would be learned as background.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from projects.detection.image_files import CheckedImage

_SLACK_PIXELS = 1.0  # how far a box may reach over the border without a word, as annotation tools round
UNKNOWN_LABEL = -1  # of an ignored box whose class is not known: it stands for every class
_MAX_NAME_CHARACTERS = 200
_MIN_IGNORED_PIXELS = 2.0  # sides of the region that is ignored for a box without area

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file and its boxes.

    name: what messages call it; width, height: of the upright image, in pixels; boxes: float32 [B, 4], x1, y1, x2, y2
    in its pixels; labels: int64 [B]; ignored: bool [B]; sha256: of the file, empty for a generated image.
    """

    path: Path
    name: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    sha256: str = ""


@dataclass(frozen=True)
class Fault:
    """Something wrong: in which file, at which image or object of it, what."""

    file: Path
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: {self.what}"


@dataclass
class Annotations:
    """What was read from a folder: classes, images by split (train, val, test, or all), faults, notes for the user.

    clip: whether boxes that leave their image are cut at its border; elsewhere they are faults.
    """

    form: Literal["voc", "coco"]
    clip: bool = False
    classes: list[str] = field(default_factory=list)
    splits: dict[str, list[AnnotatedImage]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    clipped_pixels: list[float] = field(default_factory=list)

    def add_fault(self, file: Path, where: str, what: str) -> None:
        """Adds a fault to the list."""
        self.faults.append(Fault(file, where, what))


class ImageObjects:
    """Collects the objects of one image: good boxes, and ignored ones for what is faulty.

    An image with an object whose place is not known at all cannot be used, not even as background.
    """

    def __init__(self, annotations: Annotations, file: Path, image: CheckedImage) -> None:
        self.annotations, self.file, self.image = annotations, file, image
        self.objects: list[tuple[Box, int, bool]] = []
        self.usable = True

    def add(self, where: str, corners: Sequence[Any], label: int | None, ignored: bool) -> None:
        """Adds an object; a fault of its box is noted. label: None for an unknown class, whose fault is noted already.

        corners: x1, y1, x2, y2 in pixels counted from 0, of any type.
        """
        ignored, label = ignored or label is None, UNKNOWN_LABEL if label is None else label
        numbers = _finite(corners)
        if numbers is None:
            self.annotations.add_fault(self.file, where, f"the box {list(corners)} is not four finite numbers")
            self.usable = False
            return
        x1, y1, x2, y2 = numbers
        shown = f"the box {x1:g} {y1:g} {x2:g} {y2:g}"
        width, height = float(self.image.width), float(self.image.height)
        inside = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
        has_area = inside[2] > inside[0] and inside[3] > inside[1]
        over = max(-x1, -y1, x2 - width, y2 - height)
        if x2 <= x1 or y2 <= y1:
            self.annotations.add_fault(self.file, where, f"{shown} has no area (x2 ≤ x1 or y2 ≤ y1)")
            self._ignore(numbers)
        elif over <= _SLACK_PIXELS and has_area:
            self.objects.append((inside, label, ignored))
        elif self.annotations.clip and has_area:
            self.annotations.clipped_pixels.append(over)
            self.objects.append((inside, label, ignored))
        else:
            what = f"{shown} lies outside the image of {width:g}×{height:g} pixels"
            self.annotations.add_fault(self.file, where, what)
            self._ignore(numbers)

    def _ignore(self, numbers: Box) -> None:
        """Adds the part of a faulty box that lies in the image as an ignored region, for every class."""
        sides = []
        for low, high, limit in (
            (numbers[0], numbers[2], float(self.image.width)),
            (numbers[1], numbers[3], float(self.image.height)),
        ):
            low, high = min(low, high), max(low, high)
            grow = max(0.0, _MIN_IGNORED_PIXELS - (high - low)) / 2
            sides.append((max(low - grow, 0.0), min(high + grow, limit)))
        if all(high > low for low, high in sides):
            self.objects.append(((sides[0][0], sides[1][0], sides[0][1], sides[1][1]), UNKNOWN_LABEL, True))

    def finish(self, name: str) -> AnnotatedImage | None:
        """The image with its objects; None where it cannot be used."""
        if not self.usable:
            return None
        size = self.image.width, self.image.height
        return annotated_image(self.image.path, name, size, self.objects, self.image.sha256)


def annotated_image(
    path: Path, name: str, size: tuple[int, int], objects: Sequence[tuple[Sequence[float], int, bool]], sha256: str = ""
) -> AnnotatedImage:
    """An image of a size (width, height) from its objects: (box, label, ignored)."""
    boxes = np.asarray([box for box, _, _ in objects], dtype=np.float32).reshape(-1, 4)
    labels = np.asarray([label for _, label, _ in objects], dtype=np.int64)
    ignored = np.asarray([flag for _, _, flag in objects], dtype=np.bool_)
    return AnnotatedImage(path, name, size[0], size[1], boxes, labels, ignored, sha256)


def true_or_false(value: Any) -> bool | None:
    """A truth value from true, 1, "1", "True", "yes" and their opposites; absent is False; None for anything else."""
    text = str(value).strip().lower()
    if value is None or text in ("", "0", "0.0", "false", "no"):
        return False
    return True if text in ("1", "1.0", "true", "yes") else None


def class_name_fault(name: str) -> str | None:
    """What is wrong with a class name; None where it can be used."""
    if not name:
        return "it has no name"
    if len(name) > _MAX_NAME_CHARACTERS:
        return f"a class name of {len(name):,} characters, at most {_MAX_NAME_CHARACTERS} are allowed"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return f"the class name {name!r} is not valid Unicode"
    return None


def _finite(corners: Sequence[Any]) -> Box | None:
    """Four finite numbers, or None."""
    numbers = [float(v) for v in corners if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e300]
    if len(corners) != 4 or len(numbers) != 4 or not all(math.isfinite(v) for v in numbers):
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]
