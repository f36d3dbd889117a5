"""Folders of annotated images: Pascal VOC or COCO, recognized by what is in them.

`python -m projects.detection.datasets DIR` checks a folder: it prints what is in each split, and every fault.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from core.command_line import Parser
from core.errors import UserError, run_command
from projects.detection import coco, voc
from projects.detection.annotations import Annotations
from projects.detection.config import OnFault

_NUM_SHOWN = 20


def read_folder(root: Path, on_fault: OnFault = "stop") -> Annotations:
    """The annotations of a folder in either form; every image has been decoded once.

    on_fault: stop raises UserError for the first fault. skip leaves faulty images out, and ignores faulty objects:
    their place is neither learned nor counted. clip cuts boxes that leave their image at its border, and stops at any
    other fault. Raises UserError too for a folder in neither form, and where nothing is left.
    """
    annotations = read(root, clip=on_fault == "clip")
    faults = annotations.faults
    if faults and on_fault != "skip":
        more = f" ({len(faults) - 1} more faults)" if len(faults) > 1 else ""
        clip = ", --on-fault clip to cut boxes at the border" if "lies outside the image" in faults[0].what else ""
        todo = f"repair it, or --on-fault skip{clip}; python -m projects.detection.datasets {root} shows all"
        raise UserError("faulty annotation", f"{faults[0]}{more}", todo)
    if not any(annotations.splits.values()):
        raise UserError("no annotated images", root, "give a folder in Pascal VOC or COCO form")
    if not annotations.classes:
        raise UserError("no boxes in any annotation", root, "annotate some images")
    return annotations


def read(root: Path, clip: bool = False) -> Annotations:
    """The annotations of a folder with all faults in a list. Raises UserError for a folder in neither form."""
    files = coco.find_files(root)
    if files:
        annotations = coco.read(root, files, clip)
    elif (root / "Annotations").is_dir():
        annotations = voc.read(root, clip)
    else:
        todo = "give one with Annotations/*.xml and JPEGImages/, or with annotations/instances_*.json"
        raise UserError("neither Pascal VOC nor COCO", root, todo)
    if annotations.clipped_pixels:
        num, most = len(annotations.clipped_pixels), max(annotations.clipped_pixels)
        annotations.notes.append(f"{num:,} boxes reached over their image by up to {most:g} pixels and were cut there")
    return annotations


def describe(annotations: Annotations) -> list[str]:
    """What a user should know of a folder: the splits, how it was read, what was left out or ignored."""
    lines = [f"{split:<6} {line}" for split, line in _counts(annotations).items()]
    lines += annotations.notes
    lines += [f"faulty, not used: {fault}" for fault in annotations.faults[:_NUM_SHOWN]]
    if len(annotations.faults) > _NUM_SHOWN:
        lines.append(f"and {len(annotations.faults) - _NUM_SHOWN:,} more faults")
    return lines


def _counts(annotations: Annotations) -> Mapping[str, str]:
    """A line for each split: images, boxes by class, and ignored boxes."""
    lines: dict[str, str] = {}
    for split, images in annotations.splits.items():
        per_class = np.zeros(len(annotations.classes), dtype=np.int64)
        for image in images:
            np.add.at(per_class, image.labels[~image.ignored], 1)
        shown = ", ".join(f"{name} {num:,}" for name, num in zip(annotations.classes, per_class, strict=True))
        num_ignored = sum(int(image.ignored.sum()) for image in images)
        ignored = f"; {num_ignored:,} ignored" if num_ignored else ""
        lines[split] = f"{len(images):,} images, {per_class.sum():,} boxes: {shown}{ignored}"
    return lines


def main() -> None:
    """The command line."""
    parser = Parser("projects.detection.datasets", "Checks a folder of annotated images and prints every fault.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder in Pascal VOC or COCO form")
    root = parser.parse_args().folder
    annotations = read(root)
    for split, line in _counts(annotations).items():
        print(f"{split:<6} {line}")
    for line in [*annotations.notes, *map(str, annotations.faults)]:
        print(line)
    if annotations.faults:
        raise UserError("faulty annotations", f"{len(annotations.faults)} in {root}", "see the lines above")
    print("no faults")


if __name__ == "__main__":
    run_command(main)
