"""The evaluate program of image classifiers: accuracy, confusion and mistakes of an exported file. No torch.

DATA is a folder of class folders, divided into train, val and test or not, or what a project generates. A part that the
training cut off by its seed is cut off again, from the very same images only; of others, --split all takes everything.
Images of folders are given to the file as they are; the training sees them reduced to squares by Pillow, which resizes
a little differently, so that numbers may differ by an image or two.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.config import RunConfig
from core.download import sha256_of
from core.errors import UserError
from core.evaluate import Evaluation, no_such_split, note, parse_evaluate, run_evaluate, training_settings
from core.inference import OnnxModel
from core.vision.classification import TASK, ClassifierFacts
from core.vision.classification_report import confusion_counts, plot_results
from core.vision.decoding import center_square, decode
from core.vision.folders import find_splits, list_classes
from core.vision.splitting import held_out_rows, held_out_rows_by_class, sha256_of_images, sha256_of_sets

C = TypeVar("C", bound=RunConfig)
F = TypeVar("F", bound=ClassifierFacts)
_SYNTHETIC = "synthetic"
_BATCH_SIZE = 64
_CELL_PIXELS = 128
_LEAST_PROBABILITY = 1e-12  # as in training, so that a single sure mistake leaves the loss finite


@dataclass(frozen=True)
class LabeledImages:
    """Images with their classes. labels: int64 [N]; load: row → uint8 [H, W, 3]; digests: of the files, in hexadecimal,
    without which they cannot be told from others."""

    labels: NDArray[np.int64]
    load: Callable[[int], NDArray[np.uint8]]
    digests: Callable[[], NDArray[np.bytes_]] | None = None

    def take(self, rows: NDArray[np.int64]) -> "LabeledImages":
        """Some of the images."""
        return LabeledImages(self.labels[rows], lambda row: self.load(int(rows[row])))

    def squares(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Some images as people are shown them: uint8 [N, S, S, 3]."""
        images = [self.load(row) for row in rows]
        side = min(_CELL_PIXELS, *(min(image.shape[:2]) for image in images))
        return np.stack([center_square(image, side) for image in images])


class Cut(NamedTuple):
    """What a training cuts off its training images where DATA has no such part; by_class: a share of each class."""

    name: str
    share: float
    by_class: bool = False


Sets = dict[str, LabeledImages]


def run_classifier_evaluation(
    config_class: type[C],
    facts_class: type[F],
    generate: Callable[[C, OnnxModel[F], bool], Sets],
    cuts: Callable[[C], Sequence[Cut]],
    *,
    val_is_test: bool = False,
) -> None:
    """The program of a project.

    generate: the images of DATA `synthetic`, as train and test, or the test alone, which comes sooner. cuts: what its
    training cuts off, in this order. val_is_test: whether val/ is the test where there is no test/.
    """

    def evaluate(model: OnnxModel[F], arguments: argparse.Namespace) -> Evaluation:
        data, split = arguments.data, arguments.split
        if data == _SYNTHETIC:
            config = training_settings(config_class, model, data)
            sets = generate(config, model, split == "test")
            sets = cut_off(sets, cuts(config), config.seed) if "train" in sets else sets
        else:
            sets = folder_sets(Path(data), model.facts.classes, val_is_test=val_is_test)
            facts: Any = model.facts
            to_cut = split != "all" and (split == "train" or split not in sets)
            if to_cut and data_sha256(sets, facts.classes) == facts.data_sha256:
                config = training_settings(config_class, model, data)
                sets = cut_off(sets, cuts(config), config.seed)
        return _measure(model, part_of(sets, split, data))

    data = f"{_SYNTHETIC}, or a folder: CLASS/*, or train/CLASS/*, val/CLASS/*, test/CLASS/*"
    run_evaluate(lambda: parse_evaluate(config_class, data), TASK, facts_class, evaluate)


def folder_sets(root: Path, classes: Sequence[str], *, val_is_test: bool = False) -> Sets:
    """The images of each part of a folder; of one that is not divided as train. Raises UserError for a folder that is
    not there, and for a class that the file lacks."""
    if not root.is_dir():
        raise UserError("no such folder", root, f"give {_SYNTHETIC}, or a folder with a folder for each class")
    folders, notes = find_splits(root)
    if val_is_test and "val" in folders and "test" not in folders:
        folders["test"] = folders.pop("val")
        notes.append(f"{root} has no test; its val is the test")
    sets: Sets = {}
    for name, folder in folders.items():
        listing = list_classes(folder, classes)
        notes += listing.notes
        sets[name] = LabeledImages(listing.labels, partial(_decode, listing.paths), partial(_digests, listing.paths))
    for text in notes:
        note(text)
    return sets


def cut_off(sets: Sets, cuts: Sequence[Cut], seed: int) -> Sets:
    """The sets with the parts that they lack cut off from train, as in training."""
    sets = dict(sets)
    for cut in cuts:
        if cut.name not in sets:
            hold_out = held_out_rows_by_class if cut.by_class else held_out_rows
            train = sets["train"]
            kept, off = hold_out(train.labels, cut.share, seed)
            sets["train"], sets[cut.name] = train.take(kept), train.take(off)
    return sets


def part_of(sets: Sets, split: str, data: str) -> LabeledImages:
    """One of the sets, or all together. Raises UserError where there is no such."""
    if split != "all":
        if split not in sets:
            note("the training's own images are needed to cut off the same ones; these are others")
            raise no_such_split(split, data, list(sets))
        return sets[split]
    places = [(each, row) for each in sets.values() for row in range(len(each.labels))]
    labels = np.concatenate([each.labels for each in sets.values()])
    return LabeledImages(labels, lambda row: places[row][0].load(places[row][1]))


def data_sha256(sets: Sets, classes: Sequence[str]) -> str:
    """What tells a folder's images from others before they are split, as a training's facts have it."""
    digests = {name: sha256_of_images(each.digests(), each.labels) for name, each in sets.items() if each.digests}
    return sha256_of_sets(digests, classes)


def _decode(paths: Sequence[Path], row: int) -> NDArray[np.uint8]:
    """An image of a listing."""
    return decode(paths[row])


def _digests(paths: Sequence[Path]) -> NDArray[np.bytes_]:
    """The SHA-256 of each file."""
    return np.asarray([sha256_of(path) for path in paths], dtype="S64")


def _measure(model: OnnxModel[F], images: LabeledImages) -> Evaluation:
    """Runs the file on all images: accuracy, mean over classes, cross-entropy, and a line for each class."""
    classes, labels = model.facts.classes, images.labels
    probabilities = _predict(model, images)
    counts = confusion_counts(labels, probabilities.argmax(1), len(classes))
    num_true, num_predicted, right = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    recall = [float(r / n) if n else None for r, n in zip(right, num_true, strict=True)]
    precision = [float(r / n) if n else None for r, n in zip(right, num_predicted, strict=True)]
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    numbers = {
        "accuracy": float(right.sum() / len(labels)),
        "balanced_accuracy": float(np.mean([value for value in recall if value is not None])),
        "loss": float(-np.log(np.maximum(chosen, _LEAST_PROBABILITY)).mean() + 0.0),
    }
    rows = zip(classes, num_true.tolist(), recall, precision, strict=True)
    details = {name: {"num": num, "recall": r, "precision": p} for name, num, r, p in rows}

    def plot(folder: Path) -> None:
        plot_results(folder, classes, probabilities, labels, images.squares)

    return Evaluation(numbers, len(labels), details, plot)


def _predict(model: OnnxModel[F], images: LabeledImages) -> NDArray[np.float32]:
    """Probabilities [N, num_classes]; neighbors of one size share a batch."""
    parts = []
    loaded = (images.load(row) for row in range(len(images.labels)))
    for _, same_size in groupby(loaded, key=lambda image: image.shape):
        while chunk := [image for _, image in zip(range(_BATCH_SIZE), same_size, strict=False)]:
            parts.append(model.run(image=np.stack(chunk))["probabilities"])
    return np.concatenate(parts)
