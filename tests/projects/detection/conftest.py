"""What the detector's tests share: small annotated folders of both forms, and a narrow network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from projects.detection import model

MakeFolder = Callable[..., Path]
CLASSES = ("amber", "blue")
COLORS = ((230, 150, 20), (30, 60, 220))
NARROW = ((8, 8, 16, 16, 16), 16, 1)  # widths, features and depth of a quick network


class Drawn(NamedTuple):
    """An image with one or two colored rectangles: pixels, boxes (x1, y1, x2, y2) and labels."""

    pixels: np.ndarray[Any, Any]
    boxes: list[tuple[int, int, int, int]]
    labels: list[int]


def draw(number: int) -> Drawn:
    """Image `number`, of odd size; every fourth has no box."""
    random = np.random.default_rng(number)
    height, width = (int(side) for side in random.integers(44, 75, 2))
    pixels = random.integers(90, 140, (height, width, 3)).astype(np.uint8)
    boxes, labels = [], []
    for _ in range(number % 4 and 1 + number % 2):
        w, h = (int(side) for side in random.integers(12, 24, 2))
        x, y = int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1))
        labels.append(int(random.integers(len(CLASSES))))
        pixels[y : y + h, x : x + w] = COLORS[labels[-1]]
        boxes.append((x, y, x + w, y + h))
    return Drawn(pixels, boxes, labels)


@pytest.fixture
def make_voc(tmp_path: Path) -> MakeFolder:
    """Makes a folder in Pascal VOC form: make_voc(train=8, val=4); without splits there is no ImageSets."""

    def make(name: str = "voc", unsplit: int = 0, **num: int) -> Path:
        root = tmp_path / name
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        numbers = iter(range(1, 10_000))
        for split, count in {**num, "": unsplit}.items():
            stems = []
            for number in (next(numbers) for _ in range(count)):
                stems.append(f"p{number:03}")
                drawn = draw(number)
                Image.fromarray(drawn.pixels).save(root / "JPEGImages" / f"{stems[-1]}.jpg", quality=95)
                (root / "Annotations" / f"{stems[-1]}.xml").write_text(voc_xml(stems[-1], drawn))
            if split:
                (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        return root

    return make


def voc_xml(stem: str, drawn: Drawn) -> str:
    """An annotation as VOC writes it: pixels counted from 1, the last one included."""
    height, width = drawn.pixels.shape[:2]
    objects = "".join(
        f"<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for (x1, y1, x2, y2), label in zip(drawn.boxes, drawn.labels, strict=True)
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>"


def edit_voc(root: Path, stem: str, old: str, new: str, times: int = -1) -> None:
    """Replaces text in an annotation of a VOC folder."""
    file = root / "Annotations" / f"{stem}.xml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, times))


@pytest.fixture
def make_coco(tmp_path: Path) -> MakeFolder:
    """Makes a folder in COCO form: make_coco(train=8, val=4) writes annotations/instances_SPLIT.json."""

    def make(name: str = "coco", **num: int) -> Path:
        root = tmp_path / name
        (root / "annotations").mkdir(parents=True)
        first = 1
        for split, count in num.items():
            scenes = [(number, draw(number)) for number in range(first, first + count)]
            write_coco(root, split, scenes)
            first += count
        return root

    return make


def write_coco(root: Path, split: str, scenes: list[tuple[int, Drawn]], classes: tuple[str, ...] = CLASSES) -> None:
    """Writes images/SPLIT/*.png and their annotations; ids of categories have gaps, as COCO's do."""
    folder = root / "images" / split
    folder.mkdir(parents=True)
    body: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    for number, drawn in scenes:
        name = f"{number:05}.png"
        Image.fromarray(drawn.pixels).save(folder / name)
        height, width = drawn.pixels.shape[:2]
        body["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for (x1, y1, x2, y2), label in zip(drawn.boxes, drawn.labels, strict=True):
            entry = {"image_id": number, "category_id": 10 * label + 3, "iscrowd": 0}
            bbox = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
            body["annotations"].append({"id": len(body["annotations"]) + 1, "bbox": bbox, **entry})
    body["categories"] = [{"id": 10 * label + 3, "name": name} for label, name in enumerate(classes)]
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(body))


def edit_coco(root: Path, act: Callable[[dict[str, Any]], object], split: str = "train") -> None:
    """Changes the annotations of a COCO folder."""
    file = root / "annotations" / f"instances_{split}.json"
    body = json.loads(file.read_text())
    act(body)
    file.write_text(json.dumps(body))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow network in place of the small one, which learns little and is quick."""
    monkeypatch.setattr(model.Small.__init__, "__defaults__", NARROW)
