"""Trains the detector: python -m projects.detection.train --data synthetic|DIR.

Recipe: AdamW, a short warm-up and a cosine, averaged weights; zoomed crops, mirror images, colors, mosaics (none at
the end, after Ge et al. 2021, arXiv 2107.08430). The best checkpoint is chosen by mAP on the validation images.
"""

from core.program import TrainCommand, answer_early, parse_training, run_training
from projects.detection.config import Config, Facts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_training, Config)

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from core import distributed
from core.accelerator import Accelerator
from core.distributed import World
from core.errors import UserError
from core.evaluation import count_weights, evaluating
from core.learner import Learner
from core.optim import decay_groups, warmup_cosine
from core.plots import curves, optional
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps
from core.training_state import LoopState
from cuda_ext import build as kernels
from projects.detection import metrics
from projects.detection.augment import fitted_size
from projects.detection.data import AnnotatedSet, Data, load_data
from projects.detection.deploy import Deployed
from projects.detection.detector import Detector, Targets
from projects.detection.detectors import build_model
from projects.detection.loaders import Batch, EvaluationLoader, TrainingLoader
from projects.detection.metrics import Predictions, Scores
from projects.detection.nms import Detections, Rule, select
from projects.detection.plots import save_boxes, save_precision_recall

_NUM_SHOWN = 12


def train_step(batch: Batch, *, learner: Learner[Detector]) -> dict[str, Tensor]:
    """One batch: losses by name, their sum, update. Returns the sum as loss, and its parts."""
    images, targets = batch
    with learner.accelerator.autocast():
        losses: dict[str, Tensor] = learner.forward(images, targets)
    loss = torch.stack([value.float() for value in losses.values()]).sum()
    learner.step(loss)
    return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}


def train(command: TrainCommand[Config]) -> None:
    """The whole training, from the settings to the report."""
    config, accelerator = command.config, Accelerator.of(command.config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    data = load_data(config)
    detector = build_model(config, len(data.classes), initial_weights=not command.resume)
    _check_forward(detector, data, config, accelerator.world)
    if detector.statistics is not None:
        data = replace(data, mean=detector.statistics[0], std=detector.statistics[1])
    loader = TrainingLoader(data, config, accelerator)
    optimizer = AdamW(parameter_groups(detector, config), lr=config.peak_lr, fused=True)
    steps = total_steps(config, loader)
    schedule = warmup_cosine(steps, round(config.warmup * steps), final=0.02)
    learner = Learner(detector, optimizer, schedule, accelerator, ema=config.ema, channels_last=detector.channels_last)
    run = RunFolder.start(command, _facts_of(data, config), accelerator.world, kernels.for_run(accelerator.device.type))
    if run.says_complete():
        return
    _introduce(run, data, detector, accelerator)
    val = EvaluationLoader(data.val, data, config, accelerator)
    loop = fit(
        partial(train_step, learner=learner),
        loader,
        accelerator=accelerator,
        state=learner.state(),
        run=run,
        evaluate=lambda: evaluate(val, learner.averaged, _rule_of(config), accelerator).numbers(),
        monitor=Monitor("map", larger_is_better=True),
        graph_key=(lambda: "step") if config.model == "small" else None,  # torchvision's losses look at numbers
    )
    if run.world.is_main:
        _finish(run, loop, data, val, learner)


def parameter_groups(detector: Detector, config: Config) -> list[dict[str, Any]]:
    """The optimizer's groups: with weight decay and without, those of a pretrained backbone at a rate of their own."""
    groups = decay_groups(detector, config.weight_decay)
    if config.backbone == "none":
        return groups
    below = {id(parameter) for parameter in detector.get_submodule("backbone").parameters()}
    parts = []
    for lr, is_below in ((config.peak_lr, False), (config.peak_lr * config.backbone_lr, True)):
        for group in groups:
            parts.append({**group, "lr": lr, "params": [p for p in group["params"] if (id(p) in below) == is_below]})
    return [part for part in parts if part["params"]]


def _check_forward(detector: Detector, data: Data, config: Config, world: World) -> None:
    """Tries a forward pass of torchvision's networks on a copy, before a run folder is made.

    Raises UserError for an image size or a batch that the network cannot take, such as norms over a single value.
    """
    if config.model == "small":  # takes every canvas
        return
    height, width = data.canvas
    images = torch.zeros(min(2, max(1, config.batch_size // world.size)), 3, height, width)
    box = torch.tensor([[0.0, 0.0, width / 2, height / 2]])
    targets = Targets.of([(box, torch.tensor([0]), torch.tensor([False]))] * len(images))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            copy.deepcopy(detector).train()(images, targets)
    except (RuntimeError, ValueError) as error:
        where = f"--model {config.model} at {width}×{height} pixels, --batch-size {config.batch_size}"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        todo = "try a larger --image-size or --batch-size"
        raise UserError("the network cannot take this", f"{where} ({reason})", todo) from error


def _facts_of(data: Data, config: Config) -> Facts:
    """What export needs to know of the run."""
    return Facts(
        model=config.model,
        classes=tuple(data.classes),
        canvas=data.canvas,
        mean=data.mean,
        std=data.std,
        num_train=len(data.train),
        data_sha256=data.sha256,
    )


def _introduce(run: RunFolder[Config, Facts], data: Data, detector: Detector, accelerator: Accelerator) -> None:
    """Says what a user should know of the data, and what is trained on it."""
    for note in data.notes:
        run.say(note)
    weights = f"{count_weights(detector, trained=True):,} weights to train"
    images = f"{len(data.train):,} images, seen at {data.canvas[1]}×{data.canvas[0]} pixels"
    run.say(f"{run.config.model}, {weights}, {images}; {accelerator.describe()}")


def evaluate(loader: EvaluationLoader, detector: Detector, rule: Rule, accelerator: Accelerator) -> Scores:
    """The scores of a detector on all images of a loader, over all ranks."""
    split, canvas = loader.source.split, loader.source.canvas
    mine: dict[int, Predictions] = {}
    with evaluating(detector):
        for images, rows in loader.batches():
            with accelerator.autocast():
                boxes, scores = detector.candidates(images)
            detections = select(boxes, scores, rule)
            for number, row in enumerate(rows):
                image, predictions = split.images[row], _predictions_of(detections, number)
                height, width = fitted_size(image.height, image.width, canvas)
                scale = np.array([image.width / width, image.height / height] * 2, dtype=np.float32)
                mine[row] = predictions._replace(boxes=predictions.boxes * scale)
    everything = {row: each for part in distributed.gather(mine) for row, each in part.items()}
    return metrics.evaluate(split.images, [everything[row] for row in range(len(split))], loader.num_classes)


def detect(split: AnnotatedSet, deployed: Deployed, device: torch.device) -> list[Predictions]:
    """The detections in whole images at their own size, in float32: what the exported file gives."""
    result = []
    with evaluating(deployed):
        for row in range(len(split)):
            pixels = torch.from_numpy(split.decode(row).copy())[None].to(device)
            result.append(_predictions_of(deployed(pixels), 0))
    return result


def _predictions_of(detections: Detections, number: int) -> Predictions:
    """The detections in one image of a batch."""
    num = int(detections.num[number])
    boxes, scores, labels = (part[number, :num].cpu().numpy() for part in detections[:3])
    return Predictions(boxes, scores, labels)


def _rule_of(config: Config) -> Rule:
    """Which candidates are detections."""
    return Rule(config.score_threshold, config.overlap, config.max_boxes)


def _finish(
    run: RunFolder[Config, Facts], loop: LoopState, data: Data, val: EvaluationLoader, learner: Learner[Detector]
) -> None:
    """Evaluates the best weights on the test images, once; writes plots and summary, and says what to do next."""
    learner.load_best(run, loop)
    detector, accelerator, rule = learner.averaged, learner.accelerator, _rule_of(run.config)
    val.order = replace(val.order, world=World())  # the other ranks have left
    threshold = evaluate(val, detector, rule, accelerator).best_threshold()
    deployed = Deployed(detector, data.canvas, data.mean, data.std, rule).to(accelerator.device)
    split, name = (data.test, "test") if data.test is not None else (data.val, "val")
    predictions = detect(split, deployed, accelerator.device)
    scores = metrics.evaluate(split.images, predictions, len(data.classes))
    with optional():
        _draw(run, split, predictions, scores, data.classes, threshold)
    numbers = {f"{name}_{key}": metrics.none_for_nan(value) for key, value in scores.numbers().items()}
    per_class = {text: metrics.none_for_nan(scores.average(metrics.IOU_50, k)) for k, text in enumerate(data.classes)}
    by_class = {f"{name}_ap50_{text}": value for text, value in per_class.items()}
    run.summarize(
        {
            **numbers,
            **by_class,
            f"num_{name}": len(split),
            "best_val_map": loop.best,
            "threshold": threshold,
            **loop.numbers(),
        }
    )
    shown = {key: metrics.in_words(value) for key, value in numbers.items()}
    also = f"mAP {shown[f'{name}_map']}, AP75 {shown[f'{name}_ap75']} on {len(split):,} images"
    classes = ", ".join(f"{text} {metrics.in_words(value)}" for text, value in per_class.items())
    result = f"{shown[f'{name}_ap50']}, {also}, weights of step {loop.best_step}"
    run.report({f"{name} AP50": result, "AP50 by class": classes})


def _draw(
    run: RunFolder[Config, Facts],
    split: AnnotatedSet,
    predictions: Sequence[Predictions],
    scores: Scores,
    classes: Sequence[str],
    threshold: float,
) -> None:
    """Curves, precision over recall, true and predicted boxes."""
    folder = run.path / "plots"
    curves(run.path, ["loss", "map", "ap50"])
    save_precision_recall(scores, classes, folder / "precision_recall.png")
    rows = range(0, len(split), max(1, len(split) // _NUM_SHOWN))
    shown = [(split.decode(row), split.images[row], predictions[row]) for row in rows][:_NUM_SHOWN]
    save_boxes(shown, classes, threshold, folder / "boxes.png")


if __name__ == "__main__":
    run_training(Config, train)
