"""Measures an exported file's losses on photographs: python -m projects.style.evaluate MODEL.onnx DATA --style A.jpg.

numpy, Pillow and onnxruntime; no torch. The losses are the training's, of random features; those of a pretrained
network need that network and PyTorch. The style images have to be the training's. Paintings are rounded to gray levels.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.download import sha256_of
from core.errors import UserError
from core.evaluate import Evaluation, no_such_split, note, parse_evaluate, run_evaluate, training_settings
from core.inference import OnnxModel
from core.seeds import permutation
from core.vision.decoding import center_square, decode, load_squares
from core.vision.folders import find_splits, list_images
from core.vision.image_grid import save_image_grid
from core.vision.splitting import sha256_of_images, sha256_of_sets
from projects.style.config import SYNTHETIC, TASK, Config, ModelFacts
from projects.style.numpy_loss import Losses
from projects.style.style_images import read_styles, sha256_of_pixels
from projects.style.synthetic import draw_landscapes

_HELD_OUT, _ALL = "held_out", "all"
_BATCH_SIZE, _MAX_SHOWN = 4, 8
_Images = NDArray[np.uint8]  # [N, S, S, 3]


def evaluate(model: OnnxModel[ModelFacts], arguments: argparse.Namespace) -> Evaluation:
    """Paints the photographs in each style: the mean losses, and those of each style."""
    given = {"style": arguments.style} if arguments.style else {}
    config = training_settings(Config, model, arguments.data, given)
    if config.features != "random":
        todo = "the training's own numbers are those of python -m core.inspect"
        raise UserError("losses that need a pretrained network", f"{model.path}: --features {config.features}", todo)
    losses = Losses(_styles(config, model.facts), config)
    photographs = (
        _generated(config, arguments.split)
        if config.data == SYNTHETIC
        else held_out_photographs(config, model.facts.data_sha256, arguments.split)
    )
    names = model.facts.styles
    painted = [_paint(model, photographs, style) for style in range(len(names))]
    found = {
        name: [losses(result, photograph, style) for result, photograph in zip(results, photographs, strict=True)]
        for style, (name, results) in enumerate(zip(names, painted, strict=True))
    }
    of_styles = {
        name: {key: float(np.mean([each[key] for each in its])) for key in its[0]} for name, its in found.items()
    }
    numbers = {key: float(np.mean([its[key] for its in of_styles.values()])) for key in of_styles[names[0]]}

    def plot(folder: Path) -> None:
        rows = [image for images in zip(photographs, *painted, strict=True) for image in images]
        columns = 1 + len(names)
        captions = ("photograph", *names)
        save_image_grid(rows[: _MAX_SHOWN * columns], folder / "held_out.png", columns=columns, captions=captions)

    return Evaluation(numbers, len(photographs), {"styles": of_styles}, plot)


def _styles(config: Config, facts: ModelFacts) -> Sequence[_Images]:
    """The training's style images, in the file's order. Raises UserError where one is missing or another."""
    known = {style.name: style.pixels for style in read_styles(config)}
    for name, digest in zip(facts.styles, facts.style_sha256, strict=True):
        if name not in known or sha256_of_pixels(known[name]) != digest:
            what = "a style image is missing" if name not in known else "another style image than the training's"
            raise UserError(what, f"{name}, --style {' '.join(config.style)}", "give the images of the training")
    return [known[name] for name in facts.styles]


def _paint(model: OnnxModel[ModelFacts], photographs: _Images, style: int) -> _Images:
    """The photographs in one style."""
    blend = np.eye(len(model.facts.styles), dtype=np.float32)[[style]]
    statistics = np.zeros((0, 2, model.facts.channels), dtype=np.float32)
    parts = []
    for start in range(0, len(photographs), _BATCH_SIZE):
        image = photographs[start : start + _BATCH_SIZE]
        inputs: dict[str, NDArray[Any]] = {"blend": blend.repeat(len(image), 0), "statistics": statistics}
        parts.append(model.run(image=image, keep_colors=np.zeros(len(image), np.float32), **inputs)["painted"])
    return np.concatenate(parts)


def _generated(config: Config, split: str) -> _Images:
    """Generated photographs, held out as in training."""
    drawn = draw_landscapes(config.num_synthetic + config.num_held_out, config.seed, config.image_size)
    return _squares(drawn if split == _ALL else drawn[config.num_synthetic :], config.eval_size)


def held_out_photographs(config: Config, data_sha256: str, split: str) -> _Images:
    """A folder's photographs: those that the training held out, of val/ or of its own, or all.

    data_sha256: of the training's photographs. Raises UserError where others have to be divided.
    """
    root = Path(config.data)
    if not root.is_dir():
        raise UserError("no such folder", root, f"give {SYNTHETIC}, or a folder of photographs")
    folders, notes = find_splits(root)
    listings = {name: list_images(folders[name]) for name in ("train", "val") if name in folders}
    for text in [*notes, *(each for listing in listings.values() for each in listing.notes)]:
        note(text)
    paths: dict[str, list[Path]] = {
        name: [path for path in listing.paths if _is_usable(path, config)] for name, listing in listings.items()
    }
    if split == _ALL:
        chosen = [path for its in paths.values() for path in its]
    else:
        if "val" not in paths and _sha256(paths) != data_sha256:
            note("the training's own photographs are needed to hold out the same ones; these are others")
            raise no_such_split(split, config.data, [])
        others = paths.get("val", paths["train"])
        rows = np.sort(permutation(config.seed, 0, len(others))[: config.num_held_out])
        chosen = [others[row] for row in rows]
    if not chosen:
        raise UserError("no photographs", root, "give others")
    return load_squares(chosen, config.eval_size)


def _is_usable(path: Path, config: Config) -> bool:
    """Whether the training took a photograph: a broken one stops it, or is left out with `--on-fault skip`."""
    if config.on_fault == "skip":
        try:
            decode(path)
        except UserError as error:
            note(f"left out: {error}")
            return False
    return True


def _sha256(paths: Mapping[str, list[Path]]) -> str:
    """What tells photographs from others before they are split, as a training's facts have it."""
    digests = {name: np.asarray([sha256_of(path) for path in its], dtype="S64") for name, its in paths.items()}
    its = {name: sha256_of_images(each, np.zeros(len(each), dtype=np.int64)) for name, each in digests.items()}
    return sha256_of_sets(its, ())


def _squares(images: _Images, size: int) -> _Images:
    """The middle of each image."""
    return np.stack([center_square(image, size) for image in images])


def _parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--style", nargs="+", metavar="IMAGE", help="the training's style images (default: as there)"
        )

    data = f"{SYNTHETIC}, or a folder of photographs, with val/ or the training's own"
    return parse_evaluate(Config, data, argv, (_HELD_OUT, _ALL), add)


if __name__ == "__main__":
    run_evaluate(_parse, TASK, ModelFacts, evaluate)
