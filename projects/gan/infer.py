"""Generates images with an exported file: python -m projects.gan.infer MODEL.onnx --num 64 --seed 1 --output PATH.

numpy, Pillow and onnxruntime; no torch. The same seed gives the same images, and a smaller --num gives the first of
those of a larger one.
"""

import argparse
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.benchmark import benchmark
from core.command_line import positive_number, whole_number
from core.errors import UserError, note_saved, printable, run_command
from core.inference import OnnxModel
from core.program import infer_parser
from core.progress import counted
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
    if arguments.output is None and not arguments.benchmark:
        raise UserError("nowhere to write", "--output is missing", "give a .png or a folder")
    return arguments


def infer(argv: Sequence[str] | None = None) -> None:
    """Generates images and writes them; prints where they are."""
    arguments = parse_arguments(argv)
    if arguments.benchmark:
        _measure(load_model(arguments.model, arguments.threads, arguments.provider), as_json=arguments.json)
        return
    num, seed, output = arguments.num, arguments.seed, arguments.output
    as_grid = output.suffix.lower() == ".png"
    if as_grid and (output.is_dir() or not output.parent.is_dir()):
        raise UserError("no such folder", f"--output {output}", "give a .png in an existing folder")
    if not as_grid and output.exists() and not output.is_dir():
        raise UserError("not a folder", f"--output {output}", "give a .png, or a folder")
    model = load_model(arguments.model, arguments.threads, arguments.provider)
    labels = choose_labels(model.facts.labels, arguments.label, num)
    paths = [output] * num if as_grid else [output / name for name in file_names(num, labels, model.facts.labels)]
    num_replaced = sum(path.exists() for path in set(paths))
    if as_grid:
        save_image_grid(generate(model, num, seed, labels), output, columns=math.ceil(math.sqrt(num)))
    else:
        images = (image for batch in _batches(model, num, seed, labels) for image in batch)
        for number, (path, image) in enumerate(zip(counted(paths, num, "images"), images, strict=True), start=1):
            save_image(image, path)
            note_saved(f"{output} has the first {number:,} images")
    if not arguments.json:
        replaced = f"; files replaced: {num_replaced:,}" if num_replaced else ""
        print(f"{printable(str(output))}  {num:,} images, seed {seed}{replaced}")
        return
    for number, path in enumerate(paths):
        label = None if labels is None else model.facts.labels[labels[number]]
        print(json.dumps({"path": str(path), "number": number, "label": label}))


def load_model(path: Path, threads: int = 0, provider: str = "cpu") -> OnnxModel[Facts]:
    """The generator. Raises UserError for a file whose graph does not fit what the file says of itself."""
    model = OnnxModel(path, task=TASK, facts=Facts, threads=threads, provider=provider)
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
    return np.concatenate(list(_batches(model, num, seed, labels)))


def _batches(
    model: OnnxModel[Facts], num: int, seed: int, labels: NDArray[np.int64] | None
) -> Iterator[NDArray[np.uint8]]:
    """generate, a batch at a time. The noise is drawn in the same order as by noise_of at once."""
    random = np.random.default_rng(seed)
    for start in range(0, num, _BATCH):
        some = slice(start, min(start + _BATCH, num))
        noise = random.standard_normal((some.stop - start, model.facts.latent), np.float32)
        yield generate_from(model, noise, None if labels is None else labels[some])


def _measure(model: OnnxModel[Facts], *, as_json: bool) -> None:
    """Measures a file."""

    def example(num: int) -> dict[str, NDArray[Any]]:
        label = {"label": np.zeros(num, dtype=np.int64)} if model.facts.labels else {}
        return {"noise": noise_of(model.facts, num, 0), **label}

    benchmark(model, example, as_json=as_json)


def noise_of(facts: Facts, num: int, seed: int) -> NDArray[np.float32]:
    """What a seed stands for: float32 [num, latent]."""
    return np.random.default_rng(seed).standard_normal((num, facts.latent), np.float32)


def generate_from(
    model: OnnxModel[Facts], noise: NDArray[np.float32], labels: NDArray[np.int64] | None
) -> NDArray[np.uint8]:
    """generate from noise float32 [num, latent]. Raises UserError."""
    parts = []
    for start in range(0, len(noise), _BATCH):
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
