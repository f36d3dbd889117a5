"""Finds objects in images with an exported file: python -m projects.detection.infer MODEL.onnx IMAGE_OR_FOLDER...

numpy, Pillow and onnxruntime; no torch. With --output images and videos are written with their boxes drawn in, and all
boxes as COCO JSON. With --data and --split the images of an _annotated folder are taken, and mAP is measured on them.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.benchmark import benchmark, noise_images
from core.command_line import positive_number, real_number
from core.errors import UserError, printable, run_command
from core.files import write_json
from core.inference import OnnxModel
from core.program import infer_parser
from core.records import FORMATS, RecordWriter
from core.vision.classification import read_images
from core.vision.inputs import Inputs, Pixels, find_inputs, in_batches
from core.vision.video import Video, leaving_out
from projects.detection import metrics
from projects.detection.annotations import AnnotatedImage
from projects.detection.config import TASK, Config, ModelFacts, OnFault
from projects.detection.datasets import read_folder
from projects.detection.drawings import Drawings
from projects.detection.metrics import Predictions
from projects.detection.output_paths import COLUMNS, OutputPaths, output_paths
from projects.detection.video_drawing import detect_in_video

_BATCH = 8
_BENCHMARK_PIXELS = 480, 640


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    model = OnnxModel.named_by(arguments, task=TASK, facts=ModelFacts)
    if arguments.benchmark:
        images = noise_images(*_BENCHMARK_PIXELS)
        benchmark(model, lambda num: {"image": images(num)}, as_json=arguments.json)
        return
    classes = model.facts.classes
    truths: list[AnnotatedImage] | None = None
    if arguments.data is not None:
        truths = _annotated(arguments.data, arguments.split, classes, arguments.on_fault)
        inputs = Inputs([(image.path, Path(image.path.name)) for image in truths], [], [])
    else:
        inputs = find_inputs(arguments.inputs)
    paths = output_paths(inputs, arguments.output, arguments.format)
    for note in inputs.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    kept: list[Predictions] = []
    _predict(model, inputs, paths, arguments, None if truths is None else kept)
    if truths is not None:
        _report(metrics.evaluate(truths, kept, len(classes)), classes, len(truths), paths.folder)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    named = "images, folders of images, patterns, videos, cameras by number"
    output = "folder for drawn images and videos and detections.json; a video; or a new .csv, .jsonl or .parquet"
    parser = infer_parser(Config, named, output, needs_inputs=False)
    written = "write a table in the folder --output too, as results come: a row a box; jsonl: a line an image"
    parser.add_argument("--format", choices=FORMATS, help=written)
    every = "of a video, look at every N-th frame, and draw its boxes on those after it (default: 1)"
    parser.add_argument("--every", type=positive_number, default=1, metavar="N", help=every)
    parser.add_argument("--data", type=Path, metavar="DIR", help="an _annotated folder, to measure mAP on")
    parser.add_argument("--split", default="test", help="which part of it: train, val, test, all (default: test)")
    faults = (
        "a broken image or a faulty annotation: leave it out and name it, or stop, with nothing written; clip: with "
    )
    faults += "--data, cut boxes at the border of their image (default: stop with --data, else skip)"
    parser.add_argument("--on-fault", choices=("stop", "skip", "clip"), help=faults)
    parser.add_argument("--threshold", type=real_number, metavar="X", help="lowest score (default: the model's own)")
    arguments = parser.parse_args(argv)
    if not arguments.benchmark and bool(arguments.inputs) == (arguments.data is not None):
        raise UserError("wrong command line", "INPUT and --data", "give images or folders, or --data DIR")
    arguments.on_fault = arguments.on_fault or ("skip" if arguments.data is None else "stop")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise UserError("value out of range", f"--threshold {arguments.threshold}", "give a number of 0 to 1")
    return arguments


def _predict(
    model: OnnxModel[ModelFacts],
    inputs: Inputs,
    paths: OutputPaths,
    arguments: argparse.Namespace,
    kept: list[Predictions] | None,
) -> None:
    """Prints a line for each image or frame, and writes what --output asks for; adds detections to `kept`."""
    classes, skip = model.facts.classes, arguments.on_fault == "skip"
    threshold = model.facts.threshold if arguments.threshold is None else arguments.threshold
    images = list(dict.fromkeys(path for path, _ in inputs.images))
    num, num_done = len(images) + len(inputs.videos), 0

    def run(pixels: Pixels) -> list[dict[str, Any]]:
        found = detect(model, pixels)
        return [to_record(one, its.above(threshold), classes) for one, its in zip(pixels, found, strict=True)]

    with ExitStack() as stack:
        drawings, writer = None, None
        if paths.folder is not None:
            drawings = stack.enter_context(Drawings(paths.folder, inputs.images, classes))
        if paths.table is not None:
            writer = stack.enter_context(RecordWriter(paths.table, COLUMNS))
        decoded = read_images(images, skip=skip and num > 1)
        for path, pixels, predictions in in_batches(decoded, partial(detect, model), _BATCH):
            record = {"path": str(path), **to_record(pixels, predictions.above(threshold), classes)}
            num_done += 1
            _tell(record, writer, as_json=arguments.json)
            if drawings is not None:
                drawings.add(path, pixels, record)
            if kept is not None:
                kept.append(predictions)
        for path in inputs.videos:
            with leaving_out(skip=skip and num > 1), Video(path) as video:
                target, every = paths.videos.get(path), arguments.every
                for record in detect_in_video(video, target, run, classes, every=every, batch_size=_BATCH):
                    num_done += 1
                    _tell(record, writer, as_json=arguments.json)
        if not num_done:
            raise UserError("no readable image", f"{num:,} given", "see the lines above")


def detect(model: OnnxModel[ModelFacts], images: Pixels) -> list[Predictions]:
    """The detections in each of uint8 [N, H, W, 3], whatever their score."""
    outputs = model.run(image=images)
    return [detections_of(outputs, row) for row in range(len(images))]


def detections_of(outputs: Mapping[str, NDArray[Any]], row: int) -> Predictions:
    """The detections in one image of a batch."""
    num = int(outputs["num"][row])
    return Predictions(*(outputs[name][row, :num] for name in ("boxes", "scores", "labels")))


def to_record(pixels: NDArray[np.uint8], shown: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """An image's size and detections for JSON; boxes as x1, y1, x2, y2 in its pixels."""
    detections = [
        {"label": classes[label], "score": round(float(score), 5), "box": [round(float(edge), 2) for edge in box]}
        for box, score, label in zip(*shown, strict=True)
    ]
    return {"width": pixels.shape[1], "height": pixels.shape[0], "detections": detections}


def _tell(record: dict[str, Any], writer: RecordWriter | None, *, as_json: bool) -> None:
    """Prints the line of an image or frame, and writes its record: a row a box into a table."""
    print(json.dumps(record, allow_nan=False) if as_json else _in_words(record))
    if writer is not None and writer.path.suffix.lower() == ".jsonl":
        writer.add(record)
    elif writer is not None:
        image = {name: value for name, value in record.items() if name != "detections"}
        for each in record["detections"]:
            box = dict(zip(("x1", "y1", "x2", "y2"), each["box"], strict=True))
            writer.add({**image, "label": each["label"], "score": each["score"], **box})


def _in_words(one: dict[str, Any]) -> str:
    """The line of an image or frame for people: how many objects of each class."""
    labels = [each["label"] for each in one["detections"]]
    counted = [f"{labels.count(label)} {label}" for label in sorted(set(labels))]
    time = f" {one['time_seconds']:.3f} s" if "frame" in one else ""
    return f"{printable(one['path'])}{time}  {printable(', '.join(counted)) or 'nothing'}"


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
