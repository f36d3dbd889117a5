"""Generates images with an exported file: python -m projects.gan.infer MODEL.onnx --num 64 --seed 1 --output PATH.

numpy, Pillow and onnxruntime; no torch. The same seed gives the same images, and a smaller --num gives the first of
those of a larger one.
"""

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.command_line import positive_number, whole_number
from core.errors import UserError, printable, run_command
from core.inference import OnnxModel
from core.program import infer_parser
from core.vision.image_grid import save_image, save_image_grid
from projects.gan.config import TASK, Config, Facts

_BATCH, _MAX_NUM = 64, 1_000_000
_MAX_NAME_CHARACTERS = 60


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser = infer_parser(Config, None, "a .png for one grid of all images, or a folder for a file each")
    parser.add_argument("--num", type=positive_number, default=64, metavar="N", help="images to make (default: 64)")
    parser.add_argument("--seed", type=whole_number, default=0, metavar="N", help="seed of the noise (default: 0)")
    text = "class to generate, may be given more than once (default: all in turn)"
    parser.add_argument("--label", action="append", metavar="CLASS", help=text)
    arguments = parser.parse_args(argv)
    if arguments.num > _MAX_NUM:
        raise UserError("value out of range", f"--num {arguments.num}", f"give 1 to {_MAX_NUM}")
    if arguments.seed < 0:
        raise UserError("value out of range", f"--seed {arguments.seed}", "give at least 0")
    if arguments.output is None:
        raise UserError("nowhere to write", "--output is missing", "give a .png or a folder")
    return arguments


def infer(argv: Sequence[str] | None = None) -> None:
    """Generates images and writes them; prints where they are."""
    arguments = parse_arguments(argv)
    num, seed, output = arguments.num, arguments.seed, arguments.output
    as_grid = output.suffix.lower() == ".png"
    if as_grid and (output.is_dir() or not output.parent.is_dir()):
        raise UserError("no such folder", f"--output {output}", "give a .png in an existing folder")
    if not as_grid and output.exists() and not output.is_dir():
        raise UserError("not a folder", f"--output {output}", "give a .png, or a folder")
    model = load_model(arguments.model)
    labels = choose_labels(model.facts.labels, arguments.label, num)
    images = generate(model, num, seed, labels)
    paths = [output] * num if as_grid else [output / name for name in file_names(num, labels, model.facts.labels)]
    num_replaced = sum(path.exists() for path in set(paths))
    if as_grid:
        save_image_grid(images, output, columns=math.ceil(math.sqrt(num)))
    else:
        for path, image in zip(paths, images, strict=True):
            save_image(image, path)
    if not arguments.json:
        replaced = f"; files replaced: {num_replaced:,}" if num_replaced else ""
        print(f"{printable(str(output))}  {num:,} images, seed {seed}{replaced}")
        return
    for number, path in enumerate(paths):
        label = None if labels is None else model.facts.labels[labels[number]]
        print(json.dumps({"path": str(path), "number": number, "label": label}))


def load_model(path: Path) -> OnnxModel[Facts]:
    """The generator. Raises UserError for a file whose graph does not fit what the file says of itself."""
    model = OnnxModel(path, task=TASK, facts=Facts)
    shapes = {name: list(each.shape[1:]) for name, each in model.inputs.items()}
    expected = {"noise": [model.facts.latent], **({"label": []} if model.facts.labels else {})}
    if shapes != expected:
        where = f"{path}: its graph takes {shapes}, its facts say {expected}"
        raise UserError("not a usable ONNX file", where, "export it again")
    return model


def generate(model: OnnxModel[Facts], num: int, seed: int, labels: NDArray[np.int64] | None) -> NDArray[np.uint8]:
    """Images uint8 [num, S, S, C]; labels int64 [num] where the model has classes.

    Raises UserError for a file that names more classes than its graph knows.
    """
    noise = np.random.default_rng(seed).standard_normal((num, model.facts.latent), np.float32)
    parts = []
    for start in range(0, num, _BATCH):
        some = slice(start, start + _BATCH)
        inputs = {"noise": noise[some]} if labels is None else {"noise": noise[some], "label": labels[some]}
        try:
            parts.append(model.run(**inputs)["image"])
        except Exception as error:  # onnxruntime's own types
            reason = str(error).partition("\n")[0]
            raise UserError("not a usable ONNX file", f"{model.path} ({reason})", "export it again") from error
    return np.concatenate(parts)


def choose_labels(classes: Sequence[str], wanted: Sequence[str] | None, num: int) -> NDArray[np.int64] | None:
    """The class of each image, int64 [num]: the wanted ones in turn, or all. None for a model without classes."""
    if not classes:
        if wanted:
            raise UserError("the model has no classes", f"--label {wanted[0]}", "leave it out")
        return None
    for name in wanted or ():
        if name not in classes:
            raise UserError("unknown class", f"--label {name}", f"choose from {', '.join(classes)}")
    numbers = [classes.index(name) for name in wanted or classes]
    return np.resize(np.asarray(numbers, dtype=np.int64), num)


def file_names(num: int, labels: NDArray[np.int64] | None, classes: Sequence[str]) -> list[str]:
    """A file's name for each image: its number and class.

    Of a class name, only letters, digits and single marks are used, because it may hold a path or control characters.
    """
    plain = [re.sub(r"[^\w-]+", "_", name).strip("_")[:_MAX_NAME_CHARACTERS] for name in classes]
    return [f"{number:06d}{'' if labels is None else '-' + plain[labels[number]]}.png" for number in range(num)]


if __name__ == "__main__":
    run_command(infer)
