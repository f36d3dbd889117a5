"""Paints photographs with an exported file: python -m projects.style.infer MODEL.onnx PHOTO.jpg --output PAINTED.png.

numpy, Pillow and onnxruntime; no torch. Large photographs are painted in tiles that share one set of statistics, so
memory does not grow with the photograph, and no seams are visible.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from core.command_line import positive_number, real_number, whole_number
from core.errors import UserError, printable, run_command
from core.inference import OnnxModel
from core.program import infer_parser
from core.vision.decoding import MAX_PIXELS, center_square, decode
from core.vision.folders import input_images
from core.vision.image_grid import save_image_grid
from projects.style.config import TASK, Config, ModelFacts
from projects.style.tiling import Painter, Pixels

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_GRID = "grid.png"
_GRID_CELL_PIXELS, _MAX_GRID_ROWS = 320, 16


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    output = "an image file; for many photographs a folder, which gets grid.png, too, with before and after"
    parser = infer_parser(Config, "photographs, or folders of photographs", output)
    parser.add_argument("--style", nargs="+", metavar="NAME[=WEIGHT]", help="style, or a blend (default: the first)")
    colors = "keep the photograph's colors, all or a share of 0 to 1"
    parser.add_argument(
        "--keep-colors", type=real_number, nargs="?", const=1.0, default=0.0, metavar="SHARE", help=colors
    )
    parser.add_argument("--size", type=positive_number, metavar="N", help="longer side of the result, in pixels")
    tile = "side of the tiles that larger photographs are painted in, in pixels (default: 1024)"
    parser.add_argument("--tile", type=positive_number, default=1024, metavar="N", help=tile)
    faults = "a broken photograph: leave it out and name it, or stop before any is painted (default: skip)"
    parser.add_argument("--on-fault", choices=("stop", "skip"), default="skip", help=faults)
    parser.add_argument("--threads", type=whole_number, default=0, metavar="N", help="threads; 0: all cores (default)")
    arguments = parser.parse_args(argv)
    if arguments.output is None:
        raise UserError("nowhere to write", "--output is missing", "give an image file or a folder")
    for flag, value, low, high in (
        ("--keep-colors", arguments.keep_colors, 0, 1),
        ("--size", arguments.size or 1, 1, 100_000),
        ("--tile", arguments.tile, 1, 8192),
        ("--threads", arguments.threads, 0, 1024),
    ):
        if not low <= value <= high:
            raise UserError("value out of range", f"{flag} {value}", f"give {low} to {high}")
    return arguments


def main() -> None:
    """The program."""
    arguments = parse_arguments()
    pairs, notes = targets([Path(given) for given in arguments.inputs], arguments.output)
    model = OnnxModel(arguments.model, task=TASK, facts=ModelFacts, threads=arguments.threads)
    blend = blend_of(arguments.style, model.facts.styles)
    painter = Painter(model, blend, arguments.keep_colors, arguments.tile)
    if arguments.on_fault == "stop":
        for source, _ in pairs:
            decode(source)
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    paint(painter, pairs, arguments.size, arguments.output, as_json=arguments.json)


def paint(
    painter: Painter, pairs: Sequence[tuple[Path, Path]], size: int | None, output: Path, *, as_json: bool
) -> None:
    """Paints photographs and writes them, a line each; writes grid.png where the output is a folder.

    One that cannot be read is named on standard error and left out. Raises UserError where none can be read.
    """
    shown: list[Pixels] = []
    num_painted = 0
    for source, target in pairs:
        try:
            photograph = _resized(decode(source), size)
        except UserError as error:
            if len(pairs) == 1:
                raise
            print(f"skipped: {printable(str(error))}", file=sys.stderr)
            continue
        began = time.perf_counter()
        painted = painter.paint(photograph)
        seconds, num_painted = time.perf_counter() - began, num_painted + 1
        replaced = target.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(painted).save(target, quality=95)
        _say_painted(source, target, painted, seconds, replaced=replaced, as_json=as_json)
        if len(shown) < 2 * _MAX_GRID_ROWS:
            shown += [center_square(image, _GRID_CELL_PIXELS) for image in (photograph, painted)]
    if not num_painted:
        raise UserError("no readable photograph", f"{len(pairs):,} given", "see the lines above")
    if num_painted < len(pairs):
        print(f"skipped {len(pairs) - num_painted:,} of {len(pairs):,} photographs", file=sys.stderr)
    if output != pairs[0][1]:
        save_image_grid(shown, output / _GRID, columns=2, captions=("before", "after"))
        print(f"before and after: {printable(str(output / _GRID))}", file=sys.stderr)


def _say_painted(source: Path, target: Path, painted: Pixels, seconds: float, *, replaced: bool, as_json: bool) -> None:
    """Prints the line of one photograph."""
    height, width = painted.shape[:2]
    if as_json:
        record = {"path": str(source), "output": str(target), "width": width, "height": height}
        print(json.dumps({**record, "seconds": round(seconds, 4), "replaced": replaced}), flush=True)
        return
    speed = f"{1e9 * seconds / (height * width):,.0f} ms a megapixel"
    names = printable(f"{source} → {target}")
    print(f"{names}{' (replaced)' * replaced}  {width}×{height}, {seconds:.2f} s, {speed}", flush=True)


def targets(inputs: Sequence[Path], output: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Each photograph with the path of its painting, and notes. Raises UserError before anything is read or written."""
    images, notes = input_images(inputs)
    if output.suffix and not output.is_dir():
        if output.suffix.lower() not in _SUFFIXES:
            raise UserError("unknown kind of image", f"--output {output}", f"known are {', '.join(_SUFFIXES)}")
        if len(images) > 1:
            raise UserError("one output for many photographs", f"--output {output}", "give a folder")
        pairs = [(images[0][0], output)]
    else:
        if output.exists() and not output.is_dir():
            raise UserError("not a folder", f"--output {output}", "give another")
        pairs = [(source, output / name.with_suffix(".png")) for source, name in images]
    _check_targets(pairs, output)
    return pairs, notes


def _check_targets(pairs: Sequence[tuple[Path, Path]], output: Path) -> None:
    """Raises UserError where a painting would replace a photograph, or another painting of this command."""
    sources, seen = {source.resolve() for source, _ in pairs}, set()
    for _, target in [*pairs, (output, output / _GRID)]:
        if target.resolve() in sources:
            raise UserError("a photograph would be replaced", target, "give another --output")
        if target in seen:
            raise UserError("two paintings of one name", target, "give one of them in another command")
        seen.add(target)


def blend_of(given: Sequence[str] | None, styles: Sequence[str]) -> list[float]:
    """The weight of each style, summing to 1, from NAME or NAME=WEIGHT. Raises UserError."""
    weights = dict.fromkeys(styles, 0.0)
    for word in given or styles[:1]:
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


def _resized(photograph: Pixels, size: int | None) -> Pixels:
    """A photograph with its longer side at `size`. Raises UserError for a result of too many pixels."""
    if size is None:
        return photograph
    height, width = (max(1, round(side * size / max(photograph.shape[:2]))) for side in photograph.shape[:2])
    if height * width > MAX_PIXELS:
        raise UserError("a result of too many pixels", f"--size {size}: {width}×{height}", "give a smaller one")
    return np.asarray(Image.fromarray(photograph).resize((width, height), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    run_command(main)
