"""The formats that only a project reads: whole files of them, and the function that reads each."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from core.text_files import csv_records
from tests.projects import sample_data

_JSON_LINES = '{"text": "a fine film", "label": "good"}\n{"text": "a \\u00e9 dull one", "label": "bad"}\n' * 3
_VECTORS = "5 3\nfine 0.1 -0.2 3\nfilm 1e-3 2 0.5\ndull 7 8 9\nother words 1 2 3\nlast 4 5 6\n"


def _write_voc(folder: Path) -> None:
    """A small folder, of which every input is read whole."""
    sample_data.write_voc(folder)
    for split, stems in {"train": ("00", "01"), "val": ("12",)}.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))
    for path in (*folder.glob("Annotations/*"), *folder.glob("JPEGImages/*")):
        if path.stem not in ("00", "01", "12"):
            path.unlink()


def _write_coco(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / split).mkdir()
        Image.new("RGB", (40, 30)).save(folder / split / "a.png")
        images = [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]
        boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0}]
        body = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(body))


def _read_boxes(folder: Path) -> Any:
    from projects.detection.datasets import read_folder

    return read_folder(folder)


def _write_hours(folder: Path) -> None:
    """A table of three days."""
    path = sample_data.write_hours(folder)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:73]))


def _read_hours(folder: Path) -> Any:
    from projects.forecast.series import read_series

    return read_series(folder / "table.csv")


def _read_reviews(folder: Path) -> Any:
    return list(csv_records(folder / "reviews.csv"))


def _read_json_lines(folder: Path) -> Any:
    from projects.sentiment.tables import Columns, read_table

    return read_table(folder / "reviews.jsonl", Columns(None, None), [])


def _read_vectors(folder: Path) -> Any:
    from projects.sentiment.tokenizer import train_tokenizer
    from projects.sentiment.vectors import read_vectors

    tokenizer = train_tokenizer(["fine film", "dull film"], "word", 100, 1, 20)
    return read_vectors(folder / "vectors.txt", tokenizer, 3)


def _read_idx(folder: Path) -> Any:
    """Compresses the bytes first: of changed compressed ones, the checksum would find nearly all."""
    from projects.cifar10.mnist import read_idx

    (folder / "x.idx.gz").write_bytes(gzip.compress((folder / "x.idx").read_bytes(), 1, mtime=0))
    return read_idx(folder / "x.idx.gz", 3)


def _write_idx(folder: Path) -> None:
    (folder / "x.idx").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 7]) + bytes(range(70)))


# Name: a function that makes whole files in an empty folder, the file that is changed, and what reads the folder.
FORMATS: dict[str, tuple[Callable[[Path], object], str, Callable[[Path], object]]] = {
    "csv of reviews": (sample_data.write_table_of_reviews, "reviews.csv", _read_reviews),
    "json lines": (
        lambda folder: (folder / "reviews.jsonl").write_text(_JSON_LINES),
        "reviews.jsonl",
        _read_json_lines,
    ),
    "vectors": (lambda folder: (folder / "vectors.txt").write_text(_VECTORS), "vectors.txt", _read_vectors),
    "csv of hours": (_write_hours, "table.csv", _read_hours),
    "voc": (_write_voc, "Annotations/00.xml", _read_boxes),
    "coco": (_write_coco, "train/_annotations.coco.json", _read_boxes),
    "idx": (_write_idx, "x.idx", _read_idx),
}
