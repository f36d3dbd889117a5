"""The infer command line of image classifiers: python -m projects.NAME.infer MODEL.onnx IMAGE_OR_FOLDER...

numpy, Pillow and onnxruntime; no torch. Labels and probabilities go to standard output; where images lie in folders
named like classes, their accuracy goes to standard error. Of several files the probabilities are averaged: a deep
ensemble (arXiv 1612.01474).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from core.benchmark import benchmark, noise_images
from core.command_line import positive_number
from core.config import RunConfig
from core.errors import UserError, printable, run_command
from core.inference import OnnxModel, check_like_classes
from core.program import infer_parser
from core.progress import counted
from core.records import FORMATS, RecordWriter, records_path
from core.vision.decoding import center_square, decode
from core.vision.image_grid import save_image_grid
from core.vision.inputs import Inputs, Pixels, find_inputs, in_batches
from core.vision.tally import Tally
from core.vision.video import Video, leaving_out

TASK = "image classification"
_BATCH_SIZE = 64
_NUM_IN_GRID, _GRID_CELL_PIXELS = 64, 112
_BENCHMARK_PIXELS = 256
_BEST: dict[str, type] = {"label": str, "probability": float}  # columns of a class in a table


class ClassifierFacts(Protocol):
    """What the facts of an image classifier have."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""


class Origin(NamedTuple):
    """Where an image comes from; of a video the frame's number and its time since the first one."""

    path: Path
    frame: int | None = None
    seconds: float = 0.0


Stream = Iterator[tuple[Origin, Pixels]]


def run_inference(config_class: type[RunConfig], facts_class: type[ClassifierFacts]) -> None:
    """The infer program of a project: reads the command line and leaves with the exit code of core.errors."""
    run_command(lambda: infer(config_class, facts_class))


def infer(config_class: type[RunConfig], facts_class: type[ClassifierFacts], argv: Sequence[str] | None = None) -> None:
    """Classifies what the command line names; prints a line an image, and writes files where --output is given."""
    arguments = _parse_arguments(config_class, argv)
    output, target = arguments.output, records_path(arguments.output, arguments.format, "predictions")
    grid = output / "grid.png" if output is not None and target != output else None
    if grid is not None and grid.exists():
        raise UserError("a file exists already", f"--output {grid}", "remove it, or give another --output")
    models, others = _open_models(arguments, facts_class)
    if arguments.benchmark:
        _measure(models, others, as_json=arguments.json)
        return
    classes, inputs = models[0].facts.classes, find_inputs(others)
    for note in inputs.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    tally = Tally(classes, [str(model.path) for model in models], flip=arguments.tta == "flip")
    shown: list[tuple[Pixels, str]] = []
    with ExitStack() as stack:
        columns = _columns(min(arguments.top, len(classes)), with_frames=bool(inputs.videos))
        writer = None if target is None else stack.enter_context(RecordWriter(target, columns))
        for origin, pixels, parts in _classify(models, inputs, arguments):
            record = _record(origin, best_classes(parts.mean((0, 1)), classes, arguments.top))
            tally.add(origin.path, parts)
            _print_line(origin, record, as_json=arguments.json)
            if writer is not None:
                writer.add(record)
            if grid is not None and len(shown) < _NUM_IN_GRID:
                caption = f"{record['label']} {record['probability']:.0%}"
                shown.append((center_square(pixels, _GRID_CELL_PIXELS), caption))
        if not tally.num:
            num = len(inputs.images) + len(inputs.videos)
            raise UserError("no readable image", f"{num:,} given", "see the lines above")
    for line in tally.lines():
        print(printable(line), file=sys.stderr)
    if grid is not None:
        images, captions = zip(*shown, strict=True)
        save_image_grid(images, grid, captions=captions, columns=min(8, len(shown)))


def _parse_arguments(config_class: type[RunConfig], argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    named = "images, folders of images, patterns, videos, cameras by number; and first more MODEL.onnx, to be averaged"
    output = "folder for predictions.jsonl and grid.png, or a new .csv, .jsonl or .parquet file"
    parser = infer_parser(config_class, named, output)
    parser.add_argument("--format", choices=FORMATS, help="of the predictions in the folder --output (default: jsonl)")
    parser.add_argument("--top", type=positive_number, default=3, metavar="N", help="classes to show (default: 3)")
    flip = "test-time augmentation: average with the mirrored image (default: none)"
    parser.add_argument("--tta", choices=("none", "flip"), default="none", help=flip)
    every = "of a video, classify every N-th frame (default: 1)"
    parser.add_argument("--every", type=positive_number, default=1, metavar="N", help=every)
    faults = "a broken image: leave it out and name it, or stop, with nothing written (default: skip)"
    parser.add_argument("--on-fault", choices=("stop", "skip"), default="skip", help=faults)
    return parser.parse_args(argv)


def _open_models(
    arguments: argparse.Namespace, facts_class: type[ClassifierFacts]
) -> tuple[list[OnnxModel[ClassifierFacts]], list[str]]:
    """The files to average, and the other words. Raises UserError for files of unlike classes."""
    paths = [Path(word) for word in arguments.inputs if word.lower().endswith(".onnx")]
    others = [word for word in arguments.inputs if not word.lower().endswith(".onnx")]
    if not others and not arguments.benchmark:
        raise UserError("wrong command line", "no INPUT", "give images or folders of images")
    about = {"threads": arguments.threads, "provider": arguments.provider}
    models = [OnnxModel(path, task=TASK, facts=facts_class, **about) for path in (arguments.model, *paths)]
    check_like_classes([(model.path, model.facts.classes) for model in models])
    return models, others


def _parts(images: Pixels, models: Sequence[OnnxModel[Any]], *, flip: bool) -> NDArray[np.float32]:
    """What is averaged: float32 [N, files, views, num_classes]; the views are the image and its mirror image."""
    views = [images, np.ascontiguousarray(images[:, :, ::-1])] if flip else [images]
    results = [[model.run(image=view)["probabilities"] for view in views] for model in models]
    return np.moveaxis(np.asarray(results, dtype=np.float32), 2, 0)


def _classify(
    models: Sequence[OnnxModel[Any]], inputs: Inputs, arguments: argparse.Namespace
) -> Iterator[tuple[Origin, Pixels, NDArray[np.float32]]]:
    """Each image with what is averaged for it, in the order given; images of one size share a batch."""

    def run(batch: Pixels) -> Sequence[NDArray[np.float32]]:
        return list(_parts(batch, models, flip=arguments.tta == "flip"))

    skip, is_alone = arguments.on_fault == "skip", len(inputs.images) + len(inputs.videos) == 1
    paths = [path for path, _ in inputs.images]
    images = ((Origin(path), pixels) for path, pixels in read_images(paths, skip=skip and not is_alone))
    yield from in_batches(images, run, _BATCH_SIZE)
    for path in inputs.videos:
        with leaving_out(skip=skip and not is_alone), Video(path) as video:
            yield from in_batches(_frames(video, arguments.every), run, 1 if video.is_camera else _BATCH_SIZE)


def _frames(video: Video, every: int) -> Stream:
    """The frames of a video."""
    for frame in counted(video.frames(every), video.num_frames // every or None, "frames"):
        yield Origin(video.path, frame.number, frame.seconds), frame.pixels


def read_images(paths: Sequence[Path], *, skip: bool) -> Iterator[tuple[Path, Pixels]]:
    """Yields (path, uint8 [H, W, 3]), with a bar. A broken image raises UserError, or is named on standard error and
    left out."""
    num_skipped = 0
    for path in counted(paths, len(paths), "images"):
        try:
            yield path, decode(path)
        except UserError as error:
            if not skip:
                raise
            num_skipped += 1
            print(f"skipped: {printable(str(error))}", file=sys.stderr)
    if num_skipped:
        print(f"skipped {num_skipped:,} of {len(paths):,} images", file=sys.stderr)


def best_classes(probabilities: NDArray[np.float32], classes: Sequence[str], top: int) -> dict[str, Any]:
    """The most probable class as label and probability, and under "top" the `top` most probable ones."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = [{"label": classes[k], "probability": round(float(probabilities[k]), 6)} for k in order]
    return {**best[0], "top": best}


def _record(origin: Origin, best: dict[str, Any]) -> dict[str, Any]:
    """An image's result: path, of a video frame and time, label, probability, and the most probable classes."""
    time = {} if origin.frame is None else {"frame": origin.frame, "time_seconds": round(origin.seconds, 6)}
    return {"path": str(origin.path), **time, **best}


def _columns(top: int, *, with_frames: bool) -> dict[str, type]:
    """The columns of records in a table."""
    best = {f"top.{k}.{name}": kind for k in range(1, top + 1) for name, kind in _BEST.items()}
    return {"path": str, **({"frame": int, "time_seconds": float} if with_frames else {}), **_BEST, **best}


def _print_line(origin: Origin, record: dict[str, Any], *, as_json: bool) -> None:
    """Prints an image's result."""
    if as_json:
        print(json.dumps(record, allow_nan=False))
        return
    time = "" if origin.frame is None else f" {origin.seconds:.3f} s"
    best = "  ".join(f"{each['label']} {each['probability']:.1%}" for each in record["top"])
    print(f"{printable(str(origin.path))}{time}  {printable(best)}")


def _measure(models: Iterable[OnnxModel[Any]], others: Sequence[str], *, as_json: bool) -> None:
    """Measures each file, at the size of the first image given."""
    given = find_inputs(others).images
    height, width = decode(given[0][0]).shape[:2] if given else (_BENCHMARK_PIXELS, _BENCHMARK_PIXELS)
    images = noise_images(height, width)
    for model in models:
        benchmark(model, lambda num: {"image": images(num)}, as_json=as_json)
