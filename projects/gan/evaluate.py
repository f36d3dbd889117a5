"""Compares an exported file's samples with training images: python -m projects.gan.evaluate MODEL.onnx DATA.

numpy, Pillow and onnxruntime; no torch. It measures what stands in pixels: how near samples are to the training images,
beside held-out images, which tells copies. Fréchet distance, precision, recall, diversity and classes are measured in
the features of a classifier that is a PyTorch network and no part of the file; the training has them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.evaluate import Evaluation, note, parse_evaluate, run_evaluate, training_settings
from core.inference import OnnxModel
from core.vision.decoding import load_squares
from core.vision.folders import find_splits, list_images
from core.vision.image_grid import save_image_grid
from core.vision.splitting import held_out_rows
from projects.gan.config import SYNTHETIC, TASK, Config, Facts
from projects.gan.infer import choose_labels, generate
from projects.gan.synthetic import generate_images

_NUM_SAMPLES = 256  # as in training
_COPY_SHARE = 0.5  # of the held-out images' median distance to their nearest training image
_BLOCK = 1_024
_COLUMNS, _NUM_PAIRS = 10, 40
_Images = NDArray[np.uint8]  # [N, S, S, C]


class _Real(NamedTuple):
    """Images that the training saw, and others."""

    train: _Images
    held_out: _Images


def evaluate(model: OnnxModel[Facts], arguments: argparse.Namespace) -> Evaluation:
    """Makes samples and measures their distances to the nearest training images."""
    config = training_settings(Config, model, arguments.data)
    real = _synthetic(config) if arguments.data == SYNTHETIC else _folder(Path(arguments.data), model.facts)
    labels = choose_labels(model.facts.labels, None, _NUM_SAMPLES)
    samples = generate(model, _NUM_SAMPLES, config.seed, labels)
    rows, distances = nearest(samples, real.train)
    usual = float(np.median(nearest(real.held_out[:_NUM_SAMPLES], real.train)[1]))
    numbers = {
        "nearest_gray_levels": float(np.median(distances)),
        "nearest_gray_levels_held_out": usual,
        "copies": float((distances < _COPY_SHARE * usual).mean()),
    }

    def plot(folder: Path) -> None:
        pairs = np.stack([samples, real.train[rows]], axis=1)[:_NUM_PAIRS].reshape(-1, *samples.shape[1:])
        save_image_grid(pairs, folder / "nearest.png", columns=_COLUMNS)

    note("Fréchet distance, precision and recall need the training's classifier, which is no part of the file")
    sizes = {"num_train": len(real.train), "num_held_out": len(real.held_out)}
    return Evaluation(numbers, _NUM_SAMPLES, sizes, plot)


def nearest(images: _Images, training: _Images) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest training image of each: its row int64 [N], and the root mean square distance in gray levels."""
    wanted = images.reshape(len(images), -1).astype(np.float64)
    best, rows = np.full(len(images), np.inf), np.zeros(len(images), dtype=np.int64)
    for first in range(0, len(training), _BLOCK):
        part = training[first : first + _BLOCK].reshape(-1, wanted.shape[1]).astype(np.float64)
        squares = (wanted**2).sum(1)[:, None] + (part**2).sum(1) - 2 * wanted @ part.T  # whole numbers, so exact
        there = squares.argmin(1)
        closer = (distance := squares[np.arange(len(images)), there]) < best
        best, rows = np.where(closer, distance, best), np.where(closer, first + there, rows)
    return rows, np.sqrt(best / wanted.shape[1])


def _synthetic(config: Config) -> _Real:
    """Generated shapes, divided as in training."""
    pixels, labels = generate_images(config.num_synthetic, config.seed, config.size)
    kept, off = held_out_rows(labels, config.val_fraction, config.seed)
    return _Real(pixels[kept], pixels[off])


def _folder(root: Path, facts: Facts) -> _Real:
    """ROOT/train with ROOT/test or ROOT/val. Raises UserError where there are none."""
    if not root.is_dir():
        raise UserError("no such folder", root, f"give {SYNTHETIC}, or a folder of images")
    folders, _ = find_splits(root)
    held_out = next((name for name in ("test", "val") if name in folders), None)
    if held_out is None:
        raise UserError("no held-out images", root, "add a folder test beside train")
    return _Real(*(_squares(list_images(folders[name]).paths, facts) for name in ("train", held_out)))


def _squares(paths: Sequence[Path], facts: Facts) -> _Images:
    """Images as the training sees them."""
    squares: _Images = load_squares(paths, facts.image_size)[..., : facts.channels]
    return squares


if __name__ == "__main__":
    data = f"{SYNTHETIC}, or a folder with train/ and test/ or val/"
    run_evaluate(lambda: parse_evaluate(Config, data, splits=("test",)), TASK, Facts, evaluate)
