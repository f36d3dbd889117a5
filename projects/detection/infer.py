"""Finds things in pictures with an exported file: python -m projects.detection.infer MODEL.onnx PICTURE_OR_FOLDER...

numpy, Pillow and onnxruntime; no torch. With --output the pictures are written with their boxes drawn in, and all boxes
as COCO JSON. With --data and --split an annotated folder's pictures are taken, and mAP is measured on them.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core import images
from core.config import Parser, real_number
from core.errors import UserError, run_command
from core.inference import OnnxModel
from projects.detection import metrics
from projects.detection.annotations import Picture, read_folder
from projects.detection.metrics import Found
from projects.detection.pictures import draw_boxes

TASK = "object detection"
BATCH = 8
JPEG_QUALITY = 92


class Input(NamedTuple):
    """A picture to look at: its path, and where below the output folder it is drawn."""

    path: Path
    drawn: Path


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="python -m projects.detection.infer", allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that export wrote")
    parser.add_argument("inputs", type=Path, nargs="*", metavar="INPUT", help="pictures, or folders of pictures")
    parser.add_argument("--data", type=Path, metavar="DIR", help="an annotated folder, to measure mAP on")
    parser.add_argument("--split", default="test", help="which part of it: train, val, test, all (default: test)")
    text = "a faulty annotation ends the program, or is left out (default: stop)"
    parser.add_argument("--on-fault", choices=("stop", "skip"), default="stop", help=text)
    parser.add_argument("--output", type=Path, metavar="DIR", help="write drawn pictures and detections.json there")
    parser.add_argument("--threshold", type=real_number, metavar="X", help="least score (default: the model's own)")
    parser.add_argument("--json", action="store_true", help="one JSON object a picture on standard output")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    arguments = parser.parse_args(argv)
    if bool(arguments.inputs) == (arguments.data is not None):
        raise UserError("wrong command line", "INPUT and --data", "give pictures or folders, or --data DIR")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise UserError("value out of range", f"--threshold {arguments.threshold}", "give a number of 0 to 1")
    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_dir():
        raise UserError("not a folder", f"--output {arguments.output}", "give another")
    return arguments


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    model = OnnxModel(arguments.model, task=TASK)
    classes: list[str] = model.metadata["classes"]
    truths: list[Picture] | None = None
    if arguments.data is not None:
        truths = annotated(arguments.data, arguments.split, classes, arguments.on_fault)
        inputs = named([(picture.path, Path(picture.path.name)) for picture in truths])
    else:
        inputs = named(images.collect(arguments.inputs))
    if arguments.output is not None:
        check_output(inputs, arguments.output)
    threshold = model.metadata["threshold"] if arguments.threshold is None else arguments.threshold
    found = predict(model, inputs, threshold, arguments.json, arguments.output)
    if truths is not None:
        report(metrics.evaluate(truths, found, len(classes)), classes, len(truths), arguments.output)


def predict(
    model: OnnxModel, inputs: Sequence[Input], threshold: float, as_json: bool, output: Path | None
) -> list[Found]:
    """Prints a line a picture, in the order of the inputs; draws where `output` is given, all or nothing."""
    classes: list[str] = model.metadata["classes"]
    everything, records = [], []
    scratch = None if output is None else output.with_name(f".tmp-{output.name}-{os.getpid()}")
    try:
        for (path, drawn), pixels, found in detect(model, inputs):
            everything.append(found)
            shown = found.above(threshold)
            records.append(record(path, pixels, shown, classes))
            print(json.dumps(records[-1]) if as_json else in_words(records[-1]))
            if scratch is not None:
                captions = [f"{each['label']} {100 * each['score']:.0f}" for each in records[-1]["detections"]]
                target = scratch / drawn
                target.parent.mkdir(parents=True, exist_ok=True)
                picture = draw_boxes(pixels, shown.boxes, shown.labels.tolist(), captions)
                picture.save(target, quality=JPEG_QUALITY)
        if scratch is not None and output is not None:
            scratch.mkdir(parents=True, exist_ok=True)
            (scratch / "detections.json").write_text(json.dumps(as_coco(records, classes)), encoding="utf-8")
            for file in sorted(path for path in scratch.rglob("*") if path.is_file()):
                target = output / file.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return everything


def detect(model: OnnxModel, inputs: Sequence[Input]) -> Iterator[tuple[Input, NDArray[np.uint8], Found]]:
    """Yields input, pixels and detections; neighbors of one size share a batch."""
    decoded = ((each, images.decode(each.path)) for each in inputs)
    for _, same_size in groupby(decoded, key=lambda pair: pair[1].shape):
        while chunk := [pair for _, pair in zip(range(BATCH), same_size, strict=False)]:
            outputs = model.run(image=np.stack([pixels for _, pixels in chunk]))
            for row, (each, pixels) in enumerate(chunk):
                num = int(outputs["num"][row])
                yield each, pixels, Found(*(outputs[name][row, :num] for name in ("boxes", "scores", "labels")))


def record(path: Path, pixels: NDArray[np.uint8], found: Found, classes: Sequence[str]) -> dict[str, Any]:
    """What is said of a picture; boxes as x1, y1, x2, y2 in its pixels."""
    detections = [
        {"label": classes[label], "score": round(float(score), 5), "box": [round(float(edge), 2) for edge in box]}
        for box, score, label in zip(*found, strict=True)
    ]
    return {"path": str(path), "width": pixels.shape[1], "height": pixels.shape[0], "detections": detections}


def in_words(said: dict[str, Any]) -> str:
    """A picture's line for people: how many of each class."""
    labels = [each["label"] for each in said["detections"]]
    counted = [f"{labels.count(label)} {label}" for label in sorted(set(labels))]
    return f"{said['path']}  {', '.join(counted) or 'nothing'}"


def as_coco(records: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """All detections as a COCO file, with a score in each annotation."""
    annotations: list[dict[str, Any]] = []
    for number, said in enumerate(records, 1):
        for each in said["detections"]:
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
    pictures = [
        {"id": number, "file_name": said["path"], "width": said["width"], "height": said["height"]}
        for number, said in enumerate(records, 1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    return {"images": pictures, "annotations": annotations, "categories": categories}


def named(pairs: Sequence[tuple[Path, Path]]) -> list[Input]:
    """Pictures with the names that they are drawn under, JPEG files of which no two are alike."""
    taken: set[Path] = set()
    inputs = []
    for path, name in pairs:
        drawn, number = name.with_suffix(".jpg"), 1
        while drawn in taken:
            number += 1
            drawn = name.with_name(f"{name.stem}-{number}.jpg")
        taken.add(drawn)
        inputs.append(Input(path, drawn))
    return inputs


def check_output(inputs: Sequence[Input], output: Path) -> None:
    """Raises UserError where a drawing would replace one of the pictures."""
    given = {each.path.resolve() for each in inputs}
    for each in inputs:
        if (output / each.drawn).resolve() in given:
            raise UserError("an input would be overwritten", output / each.drawn, "give another --output")


def annotated(root: Path, split: str, classes: Sequence[str], on_fault: Literal["stop", "skip"]) -> list[Picture]:
    """The pictures of a split with their true boxes, labeled as the model labels them."""
    found = read_folder(root, on_fault)
    if split not in found.splits or not found.splits[split]:
        raise UserError("no such pictures", f"--split {split} of {root}", f"choose from {', '.join(found.splits)}")
    unknown = sorted(set(found.classes) - set(classes))
    if unknown:
        raise UserError("a class that the model lacks", f"{unknown[0]} in {root}", f"it has {', '.join(classes)}")
    labels = np.array([classes.index(name) for name in found.classes], dtype=np.int64)
    return [replace(picture, labels=labels[picture.labels]) for picture in found.splits[split]]


def report(scores: metrics.Scores, classes: Sequence[str], num: int, output: Path | None) -> None:
    """Says how good the detections were, on standard error; writes it down where `output` is given."""
    numbers = scores.numbers()
    per_class = {name: scores.average(metrics.IOU_50, label) for label, name in enumerate(classes)}
    shown = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
    by_class = ", ".join(f"{name} {value:.3f}" for name, value in per_class.items())
    print(f"{shown}  on {num:,} pictures; ap50 by class: {by_class}", file=sys.stderr)
    if output is not None:
        body = {**numbers, "ap50_by_class": {k: v for k, v in per_class.items() if v == v}, "num": num}
        (output / "metrics.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
