"""Detections as a COCO file: images, categories, and annotations with a score each. No torch."""

from collections.abc import Sequence
from typing import Any


def as_coco(records: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """The records of infer.py as one COCO file; ids count from 1, boxes are [x, y, width, height] in pixels."""
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(records, 1):
        for each in one["detections"]:
            x1, y1, x2, y2 = each["box"]
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(each["label"]) + 1,
                    "bbox": [x1, y1, width, height],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                    "score": each["score"],
                }
            )
    images = [
        {"id": number, "file_name": one["path"], "width": one["width"], "height": one["height"]}
        for number, one in enumerate(records, 1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}
