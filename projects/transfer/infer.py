"""Classifies pictures with an exported file: python -m projects.transfer.infer MODEL.onnx PICTURE_OR_FOLDER...

numpy, Pillow and onnxruntime; no torch. Names and probabilities go to standard output; where pictures lie in
folders named like classes, their accuracy goes to standard error.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import images
from core.config import Parser
from core.errors import UserError, run_command
from core.inference import OnnxModel

TASK = "image classification"
BATCH = 32
NUM_ON_SHEET = 64


def main() -> None:
    """The command line."""
    parser = Parser(prog="python -m projects.transfer.infer", allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that export wrote")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="pictures, or folders of pictures")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write predictions.jsonl and sheet.png there")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes to show for a picture (default: 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
    parser.add_argument(
        "--on-bad-image",
        choices=["stop", "skip"],
        default="stop",
        help="a broken picture: name it and stop, or skip it",
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    arguments = parser.parse_args()
    if arguments.top < 1:
        raise UserError("value out of range", f"--top {arguments.top}", "give at least 1")
    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_dir():
        raise UserError("not a folder", f"--output {arguments.output}", "give another")
    model = OnnxModel(arguments.model, task=TASK)
    pictures = decoded([path for path, _ in images.collect(arguments.inputs)], skip=arguments.on_bad_image == "skip")
    predict(model, pictures, arguments.top, arguments.json, arguments.output)


def predict(
    model: OnnxModel, pictures: Iterator[tuple[Path, NDArray[np.uint8]]], top: int, as_json: bool, output: Path | None
) -> None:
    """Prints a line a picture, in the order given; writes predictions and a sheet where `output` is given."""
    classes: list[str] = model.metadata["classes"]
    lines, right, known = [], 0, 0
    for path, probabilities in classify(model, pictures):
        order = np.argsort(-probabilities, kind="stable")[:top]
        best = [{"label": classes[k], "probability": round(float(probabilities[k]), 6)} for k in order]
        record = {"path": str(path), "label": best[0]["label"], "probability": best[0]["probability"], "top": best}
        lines.append(json.dumps(record))
        known += path.parent.name in classes
        right += path.parent.name == best[0]["label"]
        shown = "  ".join(f"{each['label']} {each['probability']:.1%}" for each in best)
        print(lines[-1] if as_json else f"{path}  {shown}")
    if known:
        share = f"{right / known:.4f} of {known:,} pictures whose folder names a class"
        print(f"accuracy {share}", file=sys.stderr)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "predictions.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if lines:
            sheet([json.loads(line) for line in lines[:NUM_ON_SHEET]], output / "sheet.png")


def classify(
    model: OnnxModel, pictures: Iterator[tuple[Path, NDArray[np.uint8]]]
) -> Iterator[tuple[Path, NDArray[np.float32]]]:
    """Yields (path, probabilities [num_classes]); neighbors of one size share a batch."""
    for _, same_size in groupby(pictures, key=lambda pair: pair[1].shape):
        while chunk := [pair for _, pair in zip(range(BATCH), same_size, strict=False)]:
            probabilities = model.run(image=np.stack([image for _, image in chunk]))["probabilities"]
            yield from zip((path for path, _ in chunk), probabilities, strict=True)


def decoded(paths: Sequence[Path], skip: bool) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """Yields (path, uint8 [H, W, 3]); broken pictures raise UserError, or are named on standard error and left out."""
    num_skipped = 0
    for path in paths:
        try:
            picture = images.decode(path)
        except UserError as error:
            if not skip:
                raise
            num_skipped += 1
            print(f"skipped: {error}", file=sys.stderr)
            continue
        yield path, picture
    if num_skipped:
        print(f"skipped {num_skipped:,} of {len(paths):,} pictures", file=sys.stderr)


def sheet(records: Sequence[dict[str, Any]], path: Path) -> None:
    """The first pictures with what they were taken for."""
    from core import plots

    pictures = np.stack([images.square(images.decode(Path(record["path"])), 96) for record in records])
    captions = [f"{record['label']} {record['probability']:.0%}" for record in records]
    plots.picture_grid(pictures, captions, path, columns=min(8, len(records)))


if __name__ == "__main__":
    run_command(main)
