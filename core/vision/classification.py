"""The infer command line of image classifiers: python -m projects.NAME.infer MODEL.onnx IMAGE_OR_FOLDER...

numpy, Pillow and onnxruntime; no torch. Labels and probabilities go to standard output; where images lie in folders
named like classes, their accuracy goes to standard error.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.command_line import positive_number
from core.config import RunConfig
from core.errors import UserError, printable, run_command
from core.inference import OnnxModel
from core.program import infer_parser
from core.vision.decoding import center_square, decode
from core.vision.folders import input_images
from core.vision.image_grid import save_image_grid

TASK = "image classification"
_BATCH_SIZE = 64
_NUM_IN_GRID, _GRID_CELL_PIXELS = 64, 112

Decoded = tuple[Path, NDArray[np.uint8]]


class ClassifierFacts(Protocol):
    """What the facts of an image classifier have."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""


def run_inference(config_class: type[RunConfig], facts_class: type[ClassifierFacts]) -> None:
    """The infer program of a project: reads the command line and leaves with the exit code of core.errors."""
    run_command(lambda: infer(config_class, facts_class))


def infer(config_class: type[RunConfig], facts_class: type[ClassifierFacts], argv: Sequence[str] | None = None) -> None:
    """Classifies what the command line names; prints a line an image, and writes files where --output is given."""
    parser = infer_parser(config_class, "images, or folders of images", "folder for predictions.jsonl and grid.png")
    parser.add_argument("--top", type=positive_number, default=3, metavar="N", help="classes to show (default: 3)")
    faults = "a broken image: leave it out and name it, or stop (default: skip)"
    parser.add_argument("--on-fault", choices=("stop", "skip"), default="skip", help=faults)
    arguments = parser.parse_args(argv)
    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_dir():
        raise UserError("not a folder", f"--output {arguments.output}", "give another")
    model = OnnxModel(arguments.model, task=TASK, facts=facts_class)
    classes = model.facts.classes
    pairs, notes = input_images([Path(given) for given in arguments.inputs])
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    results = classify(model, read_images([path for path, _ in pairs], skip=arguments.on_fault == "skip"))
    records = []
    for path, probabilities in results:
        records.append(_record(path, probabilities, classes, arguments.top))
        shown = "  ".join(f"{each['label']} {each['probability']:.1%}" for each in records[-1]["top"])
        print(json.dumps(records[-1]) if arguments.json else printable(f"{path}") + f"  {printable(shown)}")
    if not records:
        raise UserError("no readable image", f"{len(pairs):,} given", "see the lines above")
    _say_accuracy(records, classes)
    if arguments.output is not None:
        _write_results(records, arguments.output)


def read_images(paths: Sequence[Path], *, skip: bool) -> Iterator[Decoded]:
    """Yields (path, uint8 [H, W, 3]). A broken image raises UserError, or is named on standard error and left out."""
    num_skipped = 0
    for path in paths:
        try:
            yield path, decode(path)
        except UserError as error:
            if not skip or len(paths) == 1:
                raise
            num_skipped += 1
            print(f"skipped: {printable(str(error))}", file=sys.stderr)
    if num_skipped:
        print(f"skipped {num_skipped:,} of {len(paths):,} images", file=sys.stderr)


def classify(model: OnnxModel[Any], images: Iterator[Decoded]) -> Iterator[tuple[Path, NDArray[np.float32]]]:
    """Yields (path, probabilities [num_classes]); neighbors of one size share a batch."""
    for _, same_size in groupby(images, key=lambda pair: pair[1].shape):
        while chunk := [pair for _, pair in zip(range(_BATCH_SIZE), same_size, strict=False)]:
            probabilities = model.run(image=np.stack([image for _, image in chunk]))["probabilities"]
            yield from zip((path for path, _ in chunk), probabilities, strict=True)


def _write_results(records: Sequence[dict[str, Any]], output: Path) -> None:
    """Writes predictions.jsonl, a JSON object a line, and grid.png of the first images."""
    output.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (output / "predictions.jsonl").write_text(lines, encoding="utf-8")
    shown = records[:_NUM_IN_GRID]
    images = [center_square(decode(Path(record["path"])), _GRID_CELL_PIXELS) for record in shown]
    captions = [f"{record['label']} {record['probability']:.0%}" for record in shown]
    save_image_grid(images, output / "grid.png", captions=captions, columns=min(8, len(shown)))


def _record(path: Path, probabilities: NDArray[np.float32], classes: Sequence[str], top: int) -> dict[str, Any]:
    """An image's result: path, label, probability, and the `top` most probable classes."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = [{"label": classes[k], "probability": round(float(probabilities[k]), 6)} for k in order]
    return {"path": str(path), **best[0], "top": best}


def _say_accuracy(records: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """Prints the accuracy over images below a folder named like a class, if there are any, on standard error."""
    known, right = 0, 0
    for record in records:
        label = _folder_label(Path(record["path"]), classes)
        known += label is not None
        right += label == record["label"]
    if known:
        others = f"; {len(records) - known:,} others lie in no such folder" if known < len(records) else ""
        print(f"accuracy {right / known:.4f} of {known:,} images whose folder names a class{others}", file=sys.stderr)


def _folder_label(path: Path, classes: Sequence[str]) -> str | None:
    """The class after which the nearest folder above an image is named."""
    return next((part for part in reversed(path.parent.parts) if part in classes), None)
