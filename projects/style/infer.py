"""Paints photographs with an exported file: python -m projects.style.infer MODEL.onnx PHOTO.jpg --output PAINTED.png.

numpy, Pillow and onnxruntime; no torch. Large photographs are painted in tiles that share one set of statistics, so
memory does not grow with the photograph, and no seam is to be seen.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core import images
from core.config import Parser, real_number, whole_number
from core.errors import UserError, run_command
from core.inference import OnnxModel
from projects.style.tiling import Painter

TASK = "style transfer"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
SHEET_SIDE, MAX_SHEET_ROWS = 320, 16


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="python -m projects.style.infer", allow_abbrev=False)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file that export wrote")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="photographs, or folders of photographs")
    parser.add_argument("--output", type=Path, required=True, help="a picture file, or a folder for many, with a sheet")
    parser.add_argument("--style", nargs="+", metavar="NAME[=WEIGHT]", help="style, or a blend (default: the first)")
    colors = "keep the photograph's colors, all or a share of 0 to 1"
    parser.add_argument(
        "--keep-colors", type=real_number, nargs="?", const=1.0, default=0.0, metavar="SHARE", help=colors
    )
    parser.add_argument("--size", type=whole_number, metavar="N", help="longer side of the result, in pixels")
    tile = "side of the parts that larger photographs are painted in, in pixels (default: 1024)"
    parser.add_argument("--tile", type=whole_number, default=1024, metavar="N", help=tile)
    parser.add_argument("--threads", type=whole_number, default=0, metavar="N", help="threads; 0: all cores (default)")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    arguments = parser.parse_args(argv)
    for flag, value, low, high in (
        ("--keep-colors", arguments.keep_colors, 0, 1),
        ("--size", arguments.size, 1, 100_000),
        ("--tile", arguments.tile, 1, 8192),
        ("--threads", arguments.threads, 0, 1024),
    ):
        if value is not None and not low <= value <= high:
            raise UserError("value out of range", f"{flag} {value}", f"give {low} to {high}")
    return arguments


def main() -> None:
    """The command line."""
    arguments = parse_arguments()
    pairs = targets(arguments.inputs, arguments.output)
    for source, _ in pairs:
        images.decode(source)  # a broken one is named before anything is painted
    model = OnnxModel(arguments.model, task=TASK, threads=arguments.threads)
    blend = blend_of(arguments.style, model.metadata["styles"])
    least = 4 * model.metadata["margin"]
    if arguments.tile < least:
        raise UserError("tiles that are mostly margin", f"--tile {arguments.tile}", f"give at least {least}")
    painter = Painter(model, blend, arguments.keep_colors, arguments.tile)
    paint(painter, pairs, arguments.size, arguments.output)


def paint(painter: Painter, pairs: Sequence[tuple[Path, Path]], size: int | None, output: Path) -> None:
    """Paints photographs and writes them, a line each; a sheet beside them where the output is a folder."""
    shown: list[list[NDArray[np.uint8]]] = []
    is_folder = output != pairs[0][1]
    for source, target in pairs:
        photograph = resized(source, size)
        began = time.perf_counter()
        painted = painter.paint(photograph)
        seconds = time.perf_counter() - began
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(painted).save(target, quality=95)
        height, width = painted.shape[:2]
        speed = f"{1e9 * seconds / (height * width):,.0f} ms a megapixel"
        print(f"{source} → {target}  {width}×{height}, {seconds:.2f} s, {speed}", flush=True)
        if len(shown) < MAX_SHEET_ROWS:
            shown.append([images.square(each, SHEET_SIDE) for each in (photograph, painted)])
    if is_folder:
        Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in shown])).save(output / "sheet.png")
        print(f"before and after: {output / 'sheet.png'}")


def targets(inputs: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Each photograph with where its painting goes. Raises UserError before anything is read or written."""
    sources = [(path, name.with_suffix(".png")) for path, name in images.collect(inputs)]
    if output.suffix and not output.is_dir():
        if output.suffix.lower() not in SUFFIXES:
            raise UserError("unknown kind of picture", f"--output {output}", f"known are {', '.join(SUFFIXES)}")
        if len(sources) > 1:
            raise UserError("one output for many photographs", f"--output {output}", "give a folder")
        pairs = [(sources[0][0], output)]
    else:
        if output.exists() and not output.is_dir():
            raise UserError("not a folder", f"--output {output}", "give another")
        pairs = [(source, output / name) for source, name in sources]
    check_targets(pairs, output)
    return pairs


def check_targets(pairs: Sequence[tuple[Path, Path]], output: Path) -> None:
    """Raises UserError where a painting would replace a photograph, or another painting."""
    sources, seen = {source.resolve() for source, _ in pairs}, set()
    for _, target in [*pairs, (output, output / "sheet.png")]:
        if target.resolve() in sources:
            raise UserError("a photograph would be replaced", target, "give another --output")
        if target in seen:
            raise UserError("two paintings of one name", target, "paint them apart")
        seen.add(target)


def blend_of(given: Sequence[str] | None, styles: Sequence[str]) -> list[float]:
    """The weight of each style, summing to 1, from NAME or NAME=WEIGHT."""
    weights = dict.fromkeys(styles, 0.0)
    for word in given or [styles[0]]:
        name, equals, number = (word, "", "") if word in weights else word.rpartition("=")
        if name not in weights:
            raise UserError("no such style", f"--style {word}", f"choose from {', '.join(styles)}")
        try:
            weights[name] = real_number(number) if equals else 1.0
        except argparse.ArgumentTypeError as error:
            raise UserError("wrong weight of a style", f"--style {word}", "give a number, as in NAME=0.5") from error
        if weights[name] < 0:
            raise UserError("negative weight of a style", f"--style {word}", "give 0 or more")
    total = sum(weights.values())
    if not 0 < total < math.inf:
        raise UserError("weights of styles without a sum", f"--style {' '.join(given or [])}", "give one above 0")
    return [weights[name] / total for name in styles]


def resized(path: Path, size: int | None) -> NDArray[np.uint8]:
    """A photograph, its longer side at `size`."""
    photograph = images.decode(path)
    if size is None:
        return photograph
    height, width = (max(1, round(side * size / max(photograph.shape[:2]))) for side in photograph.shape[:2])
    if height * width > images.MAX_PIXELS:
        raise UserError("a result of too many pixels", f"--size {size}: {width}×{height}", "give a smaller one")
    return np.asarray(Image.fromarray(photograph).resize((width, height), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    run_command(main)
