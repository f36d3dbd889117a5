"""Finds objects in images with an exported file: python -m projects.detection.infer MODEL.onnx IMAGE_OR_FOLDER...

numpy, Pillow and onnxruntime; no torch. With --output the images are written with their boxes drawn in, and all boxes
as COCO JSON. With --data and --split the images of an _annotated folder are taken, and mAP is measured on them.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.command_line import real_number
from core.errors import UserError, printable, run_command
from core.files import temporary_beside, write_json
from core.inference import OnnxModel
from core.program import infer_parser
from core.vision.classification import read_images
from core.vision.folders import input_images
from projects.detection import metrics
from projects.detection.annotations import AnnotatedImage
from projects.detection.coco_results import as_coco
from projects.detection.config import TASK, Config, ModelFacts, OnFault
from projects.detection.datasets import read_folder
from projects.detection.draw_boxes import draw_boxes
from projects.detection.metrics import Predictions

_BATCH = 8
_JPEG_QUALITY = 92


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    model = OnnxModel(arguments.model, task=TASK, facts=ModelFacts)
    classes = model.facts.classes
    threshold = model.facts.threshold if arguments.threshold is None else arguments.threshold
    truths: list[AnnotatedImage] | None = None
    if arguments.data is not None:
        truths = _annotated(arguments.data, arguments.split, classes, arguments.on_fault)
        drawn = _drawn_names([(image.path, Path(image.path.name)) for image in truths])
    else:
        pairs, notes = input_images([Path(given) for given in arguments.inputs])
        for note in notes:
            print(f"note: {printable(note)}", file=sys.stderr)
        drawn = _drawn_names(pairs)
    if arguments.output is not None:
        _check_output(drawn, arguments.output)
    predictions = _predict(model, drawn, threshold, arguments)
    if truths is not None:
        _report(metrics.evaluate(truths, predictions, len(classes)), classes, len(truths), arguments.output)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser = infer_parser(
        Config, "images, or folders of images", "folder for drawn images and detections.json", needs_inputs=False
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="an _annotated folder, to measure mAP on")
    parser.add_argument("--split", default="test", help="which part of it: train, val, test, all (default: test)")
    faults = (
        "a broken image or a faulty annotation: leave it out and name it, or stop; clip: with --data, cut boxes at "
    )
    faults += "the border of their image (default: stop with --data, else skip)"
    parser.add_argument("--on-fault", choices=("stop", "skip", "clip"), help=faults)
    parser.add_argument("--threshold", type=real_number, metavar="X", help="lowest score (default: the model's own)")
    arguments = parser.parse_args(argv)
    if bool(arguments.inputs) == (arguments.data is not None):
        raise UserError("wrong command line", "INPUT and --data", "give images or folders, or --data DIR")
    arguments.on_fault = arguments.on_fault or ("skip" if arguments.data is None else "stop")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise UserError("value out of range", f"--threshold {arguments.threshold}", "give a number of 0 to 1")
    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_dir():
        raise UserError("not a folder", f"--output {arguments.output}", "give another")
    return arguments


def _predict(
    model: OnnxModel[ModelFacts], drawn: Mapping[Path, Path], threshold: float, arguments: argparse.Namespace
) -> list[Predictions]:
    """Prints a line for each image; writes drawings and JSON where --output is given, all or nothing.

    drawn: the images, in this order, and where below the output folder they are written with their boxes.
    """
    classes, output = model.facts.classes, arguments.output
    everything: list[Predictions] = []
    records: list[dict[str, Any]] = []
    scratch = None if output is None else temporary_beside(output)
    try:
        for path, pixels, predictions in _detect(model, list(drawn), skip=arguments.on_fault == "skip"):
            everything.append(predictions)
            shown = predictions.above(threshold)
            records.append(_record(path, pixels, shown, classes))
            print(json.dumps(records[-1], allow_nan=False) if arguments.json else _in_words(records[-1]))
            if scratch is not None:
                captions = [f"{each['label']} {100 * each['score']:.0f}" for each in records[-1]["detections"]]
                target = scratch / drawn[path]
                target.parent.mkdir(parents=True, exist_ok=True)
                image = draw_boxes(pixels, shown.boxes, shown.labels.tolist(), captions)
                image.save(target, quality=_JPEG_QUALITY)
        if not records:
            raise UserError("no readable image", f"{len(drawn):,} given", "see the lines above")
        if scratch is not None and output is not None:
            scratch.mkdir(parents=True, exist_ok=True)
            write_json(scratch / "detections.json", as_coco(records, classes))
            _move_into(scratch, output)
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return everything


def _detect(
    model: OnnxModel[ModelFacts], paths: Sequence[Path], *, skip: bool
) -> Iterator[tuple[Path, NDArray[np.uint8], Predictions]]:
    """Yields path, pixels uint8 [H, W, 3] and detections; neighbors of one size share a batch.

    A broken image raises UserError, or, with skip, is named on standard error and left out.
    """
    for _, same_size in groupby(read_images(paths, skip=skip), key=lambda pair: pair[1].shape):
        while chunk := [pair for _, pair in zip(range(_BATCH), same_size, strict=False)]:
            outputs = model.run(image=np.stack([pixels for _, pixels in chunk]))
            for row, (path, pixels) in enumerate(chunk):
                num = int(outputs["num"][row])
                yield path, pixels, Predictions(*(outputs[name][row, :num] for name in ("boxes", "scores", "labels")))


def _record(path: Path, pixels: NDArray[np.uint8], shown: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """What --json prints for an image; boxes as x1, y1, x2, y2 in its pixels."""
    detections = [
        {"label": classes[label], "score": round(float(score), 5), "box": [round(float(edge), 2) for edge in box]}
        for box, score, label in zip(*shown, strict=True)
    ]
    return {"path": str(path), "width": pixels.shape[1], "height": pixels.shape[0], "detections": detections}


def _in_words(one: dict[str, Any]) -> str:
    """An image's line for people: how many objects of each class."""
    labels = [each["label"] for each in one["detections"]]
    counted = [f"{labels.count(label)} {label}" for label in sorted(set(labels))]
    return f"{printable(one['path'])}  {printable(', '.join(counted)) or 'nothing'}"


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


def _move_into(source: Path, target: Path) -> None:
    """Moves all files in and below a folder to the same places below another; files of the same names are replaced."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)


def _annotated(root: Path, split: str, classes: Sequence[str], on_fault: OnFault) -> list[AnnotatedImage]:
    """The images of a split with their true boxes, labeled as the model labels them. Raises UserError."""
    annotations = read_folder(root, on_fault)
    for fault in annotations.faults:
        print(f"faulty, not used: {printable(str(fault))}", file=sys.stderr)
    if not annotations.splits.get(split):
        there = ", ".join(annotations.splits)
        raise UserError("no such images", f"--split {split} of {root}", f"choose from {there}")
    unknown = sorted(set(annotations.classes) - set(classes))
    if unknown:
        raise UserError("a class that the model lacks", f"{unknown[0]} in {root}", f"it has {', '.join(classes)}")
    # One entry more for UNKNOWN_LABEL, which is -1 and stays so.
    labels = np.array([*(classes.index(name) for name in annotations.classes), -1], dtype=np.int64)
    return [replace(image, labels=labels[image.labels]) for image in annotations.splits[split]]


def _report(scores: metrics.Scores, classes: Sequence[str], num: int, output: Path | None) -> None:
    """Prints how good the detections were on standard error; writes metrics.json where `output` is given."""
    numbers = {name: metrics.none_for_nan(value) for name, value in scores.numbers().items()}
    averages = (metrics.none_for_nan(scores.average(metrics.IOU_50, label)) for label in range(len(classes)))
    per_class = dict(zip(classes, averages, strict=True))
    shown = "  ".join(f"{name} {metrics.in_words(value)}" for name, value in numbers.items())
    by_class = ", ".join(f"{name} {metrics.in_words(value)}" for name, value in per_class.items())
    line = f"{shown}  on {num:,} images; ap50 by class: {by_class}"
    print(printable(line), file=sys.stderr)
    if output is not None:
        write_json(output / "metrics.json", {**numbers, "ap50_by_class": per_class, "num": num})


if __name__ == "__main__":
    run_command(main)
