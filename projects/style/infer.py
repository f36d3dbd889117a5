"""Paints photographs with an exported file: python -m projects.style.infer MODEL.onnx PHOTO.jpg --output PAINTED.png.

numpy, Pillow and onnxruntime; no torch. Large photographs are painted in tiles that share one set of statistics, so
memory does not grow with the photograph, and no seams are visible.
"""

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.benchmark import benchmark, noise_images
from core.command_line import positive_number, real_number
from core.errors import UserError, note_saved, printable, run_command
from core.files import write_atomically
from core.inference import OnnxModel
from core.program import infer_parser
from core.progress import counted
from core.vision.decoding import MAX_PIXELS, center_square, decode
from core.vision.image_grid import save_image_grid
from core.vision.video import Video, VideoWriter, leaving_out
from projects.style.config import TASK, Config, ModelFacts
from projects.style.output_paths import targets
from projects.style.tiling import Painter, Pixels

_GRID_CELL_PIXELS, _MAX_GRID_ROWS = 320, 16
_BENCHMARK_PIXELS = 256, 256


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    output = "an image or a video; for several a folder, which gets grid.png, too, with before and after"
    named = "photographs, folders of photographs, patterns, videos, cameras by number"
    parser = infer_parser(Config, named, output)
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
    arguments = parser.parse_args(argv)
    if arguments.output is None and not arguments.benchmark:
        raise UserError("nowhere to write", "--output is missing", "give an image file or a folder")
    for flag, value, low, high in (
        ("--keep-colors", arguments.keep_colors, 0, 1),
        ("--size", arguments.size or 1, 1, 100_000),
        ("--tile", arguments.tile, 1, 8192),
    ):
        if not low <= value <= high:
            raise UserError("value out of range", f"{flag} {value}", f"give {low} to {high}")
    return arguments


def main() -> None:
    """The program."""
    arguments = parse_arguments()
    if arguments.benchmark:
        _measure(OnnxModel.named_by(arguments, task=TASK, facts=ModelFacts), as_json=arguments.json)
        return
    plan = targets([Path(given) for given in arguments.inputs], arguments.output)
    model = OnnxModel.named_by(arguments, task=TASK, facts=ModelFacts)
    blend = blend_of(arguments.style, model.facts.styles)
    painter = Painter(model, blend, arguments.keep_colors, arguments.tile)
    if arguments.on_fault == "stop":
        for source, _ in plan.images:
            decode(source)
    for note in plan.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    num, num_painted = len(plan.images) + len(plan.videos), 0
    skip = arguments.on_fault == "skip" and num > 1
    with leaving_out(skip=skip):
        num_painted += paint(painter, plan.images, arguments.size, plan.grid, as_json=arguments.json)
    for source, target in plan.videos.items():
        with leaving_out(skip=skip):
            paint_video(painter, source, target, arguments.size, as_json=arguments.json)
            num_painted += 1
    if not num_painted:
        raise UserError("no readable photograph", f"{num:,} given", "see the lines above")


def paint(
    painter: Painter, pairs: Sequence[tuple[Path, Path]], size: int | None, grid: Path | None, *, as_json: bool
) -> int:
    """Paints photographs and writes them, a line each; writes an image of before and after to `grid`.

    One of several that cannot be read is named on standard error and left out; alone, it raises UserError. Returns how
    many were painted.
    """
    shown: list[Pixels] = []
    num_painted = 0
    for source, target in counted(pairs, len(pairs), "photographs"):
        try:
            photograph = resized(decode(source), size)
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
        _write(painted, target)
        note_saved(f"{num_painted:,} photographs are painted")
        _say_painted(source, target, painted, seconds, replaced=replaced, as_json=as_json)
        if grid is not None and len(shown) < 2 * _MAX_GRID_ROWS:
            shown += [center_square(image, _GRID_CELL_PIXELS) for image in (photograph, painted)]
    if num_painted < len(pairs):
        print(f"skipped {len(pairs) - num_painted:,} of {len(pairs):,} photographs", file=sys.stderr)
    if grid is not None and shown:
        replaced = grid.exists()
        save_image_grid(shown, grid, columns=2, captions=("before", "after"))
        print(f"before and after: {printable(str(grid))}{' (replaced)' * replaced}", file=sys.stderr)
    return num_painted


def paint_video(painter: Painter, source: Path, target: Path, size: int | None, *, as_json: bool) -> None:
    """Paints every frame of a video or camera, and prints a line. Raises UserError, or RunError where it breaks off."""
    replaced, began = target.exists(), time.perf_counter()
    with Video(source) as video, VideoWriter(target, video) as writer:
        for frame in counted(video.frames(writer=writer), video.num_frames or None, "frames"):
            painted = painter.paint(resized(frame.pixels, size))
            writer.add(frame, painted)
    seconds = time.perf_counter() - began
    _say_painted(source, target, painted, seconds, replaced=replaced, as_json=as_json, num_frames=writer.num)


def _write(painted: Pixels, target: Path) -> None:
    """Writes an image as a whole, in the format that its name ends in."""
    content = io.BytesIO()
    Image.fromarray(painted).save(content, Image.registered_extensions()[target.suffix.lower()], quality=95)
    write_atomically(target, content.getvalue())


def _measure(model: OnnxModel[ModelFacts], *, as_json: bool) -> None:
    """Measures a file at small photographs."""
    images, facts = noise_images(*_BENCHMARK_PIXELS), model.facts
    blend = np.asarray([blend_of(None, facts.styles)], dtype=np.float32)

    def example(num: int) -> dict[str, np.ndarray[Any, Any]]:
        statistics = np.zeros((0, 2, facts.channels), dtype=np.float32)
        keep_colors = np.zeros(num, dtype=np.float32)
        blends = blend.repeat(num, axis=0)
        return {"image": images(num), "blend": blends, "keep_colors": keep_colors, "statistics": statistics}

    benchmark(model, example, as_json=as_json)


def _say_painted(
    source: Path,
    target: Path,
    painted: Pixels,
    seconds: float,
    *,
    replaced: bool,
    as_json: bool,
    num_frames: int | None = None,
) -> None:
    """Prints the line of one photograph, or of a video with its number of frames."""
    height, width = painted.shape[:2]
    if as_json:
        record = {"path": str(source), "output": str(target), "width": width, "height": height}
        frames = {} if num_frames is None else {"frames": num_frames}
        print(json.dumps({**record, **frames, "seconds": round(seconds, 4), "replaced": replaced}), flush=True)
        return
    frames_shown = "" if num_frames is None else f"{num_frames:,} frames, "
    speed = f"{1e9 * seconds / (height * width * (num_frames or 1)):,.0f} ms a megapixel"
    names = printable(f"{source} → {target}")
    print(f"{names}{' (replaced)' * replaced}  {width}×{height}, {frames_shown}{seconds:.2f} s, {speed}", flush=True)


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


def resized(photograph: Pixels, size: int | None) -> Pixels:
    """A photograph with its longer side at `size`. Raises UserError for a result of too many pixels."""
    if size is None:
        return photograph
    height, width = (max(1, round(side * size / max(photograph.shape[:2]))) for side in photograph.shape[:2])
    if height * width > MAX_PIXELS:
        raise UserError("a result of too many pixels", f"--size {size}: {width}×{height}", "give a smaller one")
    return np.asarray(Image.fromarray(photograph).resize((width, height), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    run_command(main)
