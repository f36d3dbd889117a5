"""Measures mAP of an exported file on annotated images: python -m projects.detection.evaluate MODEL.onnx DATA.

numpy, Pillow, onnxruntime and faster-coco-eval; no torch. DATA is a folder in Pascal VOC or COCO form, or synthetic.
Images are given to the file one after the other at their own size, as the training's test does.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.evaluate import Evaluation, no_such_split, note, parse_evaluate, run_evaluate, training_settings
from core.inference import OnnxModel
from core.vision.decoding import decode
from projects.detection import metrics
from projects.detection.annotations import AnnotatedImage
from projects.detection.config import TASK, Config, ModelFacts
from projects.detection.datasets import describe, read_folder
from projects.detection.metrics import Predictions
from projects.detection.plots import save_boxes, save_precision_recall
from projects.detection.synthetic import draw_scenes

_SYNTHETIC = "synthetic"
_NUM_SHOWN = 12


class _Annotated(NamedTuple):
    """Images with their true boxes, labeled as the model labels them; load: row → uint8 [H, W, 3]."""

    truths: Sequence[AnnotatedImage]
    load: Callable[[int], NDArray[np.uint8]]


def evaluate(model: OnnxModel[ModelFacts], arguments: argparse.Namespace) -> Evaluation:
    """Runs the file on the images that the command line names, and compares its boxes with the true ones."""
    classes, threshold = model.facts.classes, model.facts.threshold
    if arguments.data == _SYNTHETIC:
        truths, load = _synthetic(training_settings(Config, model, _SYNTHETIC), arguments.split)
    else:
        truths, load = _folder(Path(arguments.data), arguments.split, classes)
    predictions = [_detect(model, load(row)) for row in range(len(truths))]
    scores = metrics.evaluate(truths, predictions, len(classes))
    by_class = {f"ap50_{name}": scores.average(metrics.IOU_50, label) for label, name in enumerate(classes)}

    def plot(folder: Path) -> None:
        save_precision_recall(scores, classes, folder / "precision_recall.png")
        rows = range(0, len(truths), max(1, len(truths) // _NUM_SHOWN))
        shown = [(load(row), truths[row], predictions[row]) for row in rows][:_NUM_SHOWN]
        save_boxes(shown, classes, threshold, folder / "boxes.png")

    details = {"threshold": threshold, "best_threshold": scores.best_threshold()}
    return Evaluation({**scores.numbers(), **by_class}, len(truths), details, plot)


def _detect(model: OnnxModel[ModelFacts], pixels: NDArray[np.uint8]) -> Predictions:
    """The detections in one image."""
    outputs = model.run(image=pixels[None])
    num = int(outputs["num"][0])
    return Predictions(*(outputs[name][0, :num] for name in ("boxes", "scores", "labels")))


def _synthetic(config: Config, split: str) -> _Annotated:
    """Generated scenes, the same as the training's."""
    num_other = config.num_synthetic // 6
    num = 2 * num_other + config.num_synthetic
    first, end = {"test": (0, num_other), "val": (num_other, 2 * num_other), "train": (2 * num_other, num)}.get(
        split, (0, num)
    )
    scenes = draw_scenes(end, config.seed)[first:]
    return _Annotated([scene.image for scene in scenes], lambda row: scenes[row].pixels)


def _folder(root: Path, split: str, classes: Sequence[str]) -> _Annotated:
    """The images of a part of a folder. Raises UserError for a fault, and for a class that the model lacks."""
    if not root.is_dir():
        raise UserError("no such folder", root, "give synthetic, or a folder in Pascal VOC or COCO form")
    annotations = read_folder(root)
    for text in describe(annotations):
        note(text)
    splits = {name: images for name, images in annotations.splits.items() if images}
    if split != "all" and split not in splits:
        raise no_such_split(split, root, [name for name in splits if name != "all"])
    unknown = sorted(set(annotations.classes) - set(classes))
    if unknown:
        raise UserError("a class that the model lacks", f"{unknown[0]} in {root}", f"it has {', '.join(classes)}")
    # One entry more for UNKNOWN_LABEL, which is -1 and stays so.
    labels = np.array([*(classes.index(name) for name in annotations.classes), -1], dtype=np.int64)
    images = [image for name, part in splits.items() if split in (name, "all") for image in part]
    truths = [replace(image, labels=labels[image.labels]) for image in images]
    return _Annotated(truths, lambda row: decode(truths[row].path))


if __name__ == "__main__":
    data = "synthetic, or a folder in Pascal VOC or COCO form"
    run_evaluate(lambda: parse_evaluate(Config, data), TASK, ModelFacts, evaluate)
