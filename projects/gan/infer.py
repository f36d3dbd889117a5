"""Draws pictures with an exported file: python -m projects.gan.infer MODEL.onnx --num 64 --seed 1 --output PATH.

numpy, Pillow and onnxruntime; no torch. The same seed draws the same pictures, and the first of many are those of few.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.config import Parser
from core.errors import UserError, run_command
from core.inference import OnnxModel
from projects.gan.sheet import save_sheet

TASK = "image generation"
BATCH, MOST = 64, 1_000_000


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="python -m projects.gan.infer", allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that export wrote")
    parser.add_argument("--num", type=int, default=64, metavar="N", help="pictures to draw (default: 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default: 0)")
    parser.add_argument("--label", action="append", metavar="CLASS", help="class to draw; may be given more than once")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="PATH", help="a .png for one sheet, or a folder for a file each"
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    arguments = parser.parse_args()
    if not 1 <= arguments.num <= MOST:
        raise UserError("value out of range", f"--num {arguments.num}", f"give 1 to {MOST}")
    if arguments.seed < 0:
        raise UserError("value out of range", f"--seed {arguments.seed}", "give at least 0")
    return arguments


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    model, output = OnnxModel(arguments.model, task=TASK), arguments.output
    as_sheet = output.suffix.lower() == ".png"
    if as_sheet and (output.is_dir() or not output.parent.is_dir()):
        raise UserError("no such folder", f"--output {output}", "give a .png in a folder that is there")
    if not as_sheet and output.exists() and not output.is_dir():
        raise UserError("not a folder", f"--output {output}", "give a .png, or a folder")
    labels = wanted_labels(model, arguments.label, arguments.num)
    drawn = draw(model, arguments.num, arguments.seed, labels)
    if as_sheet:
        save_sheet(drawn, columns(arguments.num), output)
    else:
        save_each(drawn, labels, model.metadata["classes"], output)
    print(f"{output}  {arguments.num} pictures, seed {arguments.seed}")


def draw(model: OnnxModel, num: int, seed: int, labels: NDArray[np.int64] | None) -> NDArray[np.uint8]:
    """Pictures uint8 [num, S, S, C]; labels int64 [num] where the model has classes."""
    noise = np.random.default_rng(seed).standard_normal((num, model.metadata["latent"]), np.float32)
    parts = []
    for start in range(0, num, BATCH):
        some = slice(start, start + BATCH)
        inputs = {"noise": noise[some]} if labels is None else {"noise": noise[some], "label": labels[some]}
        parts.append(model.run(**inputs)["image"])
    return np.concatenate(parts)


def wanted_labels(model: OnnxModel, names: Sequence[str] | None, num: int) -> NDArray[np.int64] | None:
    """The classes to draw, which take turns: those that are named, or all. None for a model without classes."""
    classes: list[str] = model.metadata["classes"]
    if not classes:
        if names:
            raise UserError("the model has no classes", f"--label {names[0]}", "leave it out")
        return None
    for name in names or ():
        if name not in classes:
            raise UserError("unknown class", f"--label {name}", f"choose from {', '.join(classes)}")
    numbers = [classes.index(name) for name in names or classes]
    return np.resize(np.asarray(numbers, dtype=np.int64), num)


def columns(num: int) -> int:
    """Columns of a sheet that is about as wide as it is high."""
    return int(np.ceil(np.sqrt(num)))


def save_each(drawn: NDArray[np.uint8], labels: NDArray[np.int64] | None, classes: Sequence[str], folder: Path) -> None:
    """Writes each picture as a PNG of its own, named by its number and class."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(drawn):
        name = f"{number:06d}" if labels is None else f"{number:06d}-{classes[labels[number]]}"
        Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(folder / f"{name}.png")


if __name__ == "__main__":
    run_command(main)
