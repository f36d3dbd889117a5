"""The folder that infer writes: images with their boxes drawn in, and all boxes as COCO JSON. No torch."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError, note_saved, printable
from core.files import temporary_beside, write_json
from projects.detection.coco_results import as_coco
from projects.detection.draw_boxes import draw_boxes

_JPEG_QUALITY = 92


class Drawings:
    """A context that collects images in a folder beside `output`, and moves them there at its end.

    A program that is stopped leaves the images before; one that refuses its input leaves nothing.
    pairs: the images and their names below the folder that was given. Raises UserError where a drawing would replace
    one of them.
    """

    def __init__(self, output: Path, pairs: Sequence[tuple[Path, Path]], classes: Sequence[str]) -> None:
        self._output, self._scratch, self._classes = output, temporary_beside(output.absolute()), classes
        self._names = _drawn_names(pairs)
        self._records: list[dict[str, Any]] = []
        _check_output(self._names, output)

    def __enter__(self) -> Self:
        return self

    def add(self, path: Path, pixels: NDArray[np.uint8], record: dict[str, Any]) -> None:
        """Draws an image with the detections of its record."""
        target = self._scratch / self._names[path]
        target.parent.mkdir(parents=True, exist_ok=True)
        draw(pixels, record, self._classes).save(target, quality=_JPEG_QUALITY)
        self._records.append(record)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._records and not isinstance(error, UserError):
                write_json(self._scratch / "detections.json", as_coco(self._records, self._classes))
                num_replaced = _move_into(self._scratch, self._output)
                if num_replaced:
                    print(f"note: files replaced in {printable(str(self._output))}: {num_replaced:,}", file=sys.stderr)
                if error is not None:
                    note_saved(f"{self._output} holds the first {len(self._records):,} images")
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)


def draw(pixels: NDArray[np.uint8], record: dict[str, Any], classes: Sequence[str]) -> Image.Image:
    """An image with the detections of a record."""
    found = record["detections"]
    boxes = np.array([each["box"] for each in found], dtype=np.float32).reshape(-1, 4)
    captions = [f"{each['label']} {100 * each['score']:.0f}" for each in found]
    return draw_boxes(pixels, boxes, [classes.index(each["label"]) for each in found], captions)


def _drawn_names(pairs: Sequence[tuple[Path, Path]]) -> dict[Path, Path]:
    """For each image the name that it is drawn under: JPEG files of which no two are alike."""
    taken: set[Path] = set()
    result: dict[Path, Path] = {}
    for path, name in pairs:
        drawn, number = name.with_suffix(".jpg"), 1
        while drawn in taken:
            number += 1
            drawn = name.with_name(f"{name.stem}-{number}.jpg")
        if path not in result:
            taken.add(drawn)
            result[path] = drawn
    return result


def _check_output(drawn: Mapping[Path, Path], output: Path) -> None:
    """Raises UserError where a drawing would replace one of the images."""
    given = {path.resolve() for path in drawn}
    for name in drawn.values():
        if (output / name).resolve() in given:
            raise UserError("an input would be overwritten", output / name, "give another --output")


def _move_into(source: Path, target: Path) -> int:
    """Moves all files in and below a folder to the same places below another; returns how many were replaced there."""
    num_replaced = 0
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        num_replaced += place.exists()
        file.replace(place)
    return num_replaced
