"""Trains the detector: python -m projects.detection.train --data synthetic|DIR.

Recipe: AdamW, a short warm-up and a cosine, averaged weights; zoomed crops, mirror images, colors, mosaics (none at
the end, after Ge et al. 2021, arXiv 2107.08430). The best checkpoint is chosen by mAP on the validation pictures.
"""

from core.config import Command, answer_early, parse_training
from projects.detection.config import PROJECT, SMOKE, Config


def parse_arguments(argv: list[str] | None = None) -> Command[Config]:
    """The command line."""
    command = parse_training(Config, "projects.detection.train", SMOKE, argv)
    command.config.check_ready(command.resume)
    return command


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core import distributed, plots
from core.accelerator import Accelerator
from core.distributed import World
from core.errors import run_command
from core.evaluation import evaluating
from core.optim import Ema, decay_groups, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import LoopState, Monitor, Stateful, best_state, fit, total_steps
from cuda_ext import build as kernels
from projects.detection import metrics, pictures
from projects.detection.augment import fitted
from projects.detection.data import Batch, Data, EvaluationLoader, Split, TrainingLoader, load_data
from projects.detection.deploy import Deployed
from projects.detection.metrics import Found, Scores
from projects.detection.model import Detector, build_model
from projects.detection.selection import Detections, Rule, select

SMOKE_LOSS_RATIO = 0.8  # a smoke run has to bring the loss below this share of its first value
NUM_SHOWN = 12


def train_step(
    batch: Batch,
    *,
    forward: nn.Module,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    ema: Ema | None,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """One batch: losses by name, their sum, update. Returns the sum as loss, and its parts."""
    images, targets = batch
    with accelerator.autocast():
        losses: dict[str, Tensor] = forward(images, targets)
    loss = torch.stack([value.float() for value in losses.values()]).sum()
    accelerator.step(loss, optimizer, scheduler=scheduler, ema=ema)
    return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}


def evaluate(loader: EvaluationLoader, detector: Detector, rule: Rule, accelerator: Accelerator) -> Scores:
    """The scores of a detector on all pictures of a loader, over all ranks."""
    split, canvas = loader.source.split, loader.source.canvas
    mine: dict[int, Found] = {}
    with evaluating(detector):
        for images, rows in loader.batches():
            with accelerator.autocast():
                boxes, scores = detector.candidates(images)
            detections = select(boxes, scores, rule)
            for number, row in enumerate(rows):
                picture, found = split.pictures[row], found_in(detections, number)
                fit_height, fit_width = fitted(picture.height, picture.width, canvas)
                scale = np.array([picture.width / fit_width, picture.height / fit_height] * 2, dtype=np.float32)
                mine[row] = found._replace(boxes=found.boxes * scale)
    everything = {row: found for part in distributed.gather(mine) for row, found in part.items()}
    return metrics.evaluate(split.pictures, [everything[row] for row in range(len(split))], loader.num_classes)


def detect(split: Split, deployed: Deployed, device: torch.device) -> list[Found]:
    """The detections in whole pictures as they are on the disk, in float32: what the exported file gives."""
    result = []
    with evaluating(deployed):
        for row in range(len(split)):
            pixels = torch.from_numpy(split.decode(row).copy())[None].to(device)
            result.append(found_in(deployed(pixels), 0))
    return result


def found_in(detections: Detections, number: int) -> Found:
    """One picture's detections, without the empty ones."""
    num = int(detections.num[number])
    boxes, scores, labels = (part[number, :num].cpu().numpy() for part in detections[:3])
    return Found(boxes, scores, labels)


def train(command: Command[Config]) -> None:
    """The whole training, from the settings to the summary."""
    config, began = command.config, time.perf_counter()
    accelerator = Accelerator.of(config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    data = load_data(config)
    detector = build_model(config, len(data.classes), begin=not command.resume)
    if detector.statistics is not None:
        data = replace(data, mean=detector.statistics[0], std=detector.statistics[1])
    loader = TrainingLoader(data, config, accelerator)
    forward = accelerator.prepare(detector, channels_last=detector.channels_last)
    optimizer = AdamW(decay_groups(detector, config.weight_decay), lr=config.peak_lr, fused=True)
    steps = total_steps(config, loader)
    scheduler = LambdaLR(optimizer, warmup_cosine(steps, round(config.warmup * steps), final=0.02))
    ema = Ema(detector, config.ema) if config.ema else None
    state: dict[str, Stateful] = {"model": detector, "optimizer": optimizer, "scheduler": scheduler}
    if ema is not None:
        state["ema"] = ema
    facts = {
        "model": config.model,
        "classes": list(data.classes),
        "canvas": list(data.canvas),
        "mean": list(data.mean),
        "std": list(data.std),
        "num_train": len(data.train),
        "sha256": data.sha256,
    }
    kernels.ensure(accelerator.device.type)
    run = RunFolder.start(
        PROJECT,
        config,
        command.run_dir,
        resume=command.resume,
        facts=facts,
        world=accelerator.world,
        environment=kernels.status(accelerator.device.type).plain(),
    )
    if run.says_complete():
        return
    introduce(run, data, detector, accelerator)
    judged = ema.module if ema is not None else detector
    assert isinstance(judged, Detector)
    val = EvaluationLoader(data.val, data, config, accelerator)
    loop = fit(
        partial(
            train_step, forward=forward, optimizer=optimizer, scheduler=scheduler, ema=ema, accelerator=accelerator
        ),
        loader,
        accelerator=accelerator,
        state=state,
        run=run,
        evaluate=lambda: evaluate(val, judged, rule_of(config), accelerator).numbers(),
        monitor=Monitor("map", larger_is_better=True),
    )
    distributed.stop()
    if run.world.is_main:
        finish(run, loop, data, val, judged, accelerator, began=began, smoke=command.smoke)


def introduce(run: RunFolder[Config], data: Data, detector: Detector, accelerator: Accelerator) -> None:
    """Says what is trained on what."""
    for note in data.notes:
        run.say(note)
    num = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    shown = f"{data.canvas[1]}×{data.canvas[0]} pixels"
    counts = f"{len(data.train):,} training and {len(data.val):,} validation pictures"
    run.say(f"{run.config.model}, {num:,} weights to train, {counts}, seen at {shown}, {accelerator.describe()}")


def rule_of(config: Config) -> Rule:
    """What counts as a detection."""
    return Rule(config.score_threshold, config.overlap, config.max_boxes)


def finish(
    run: RunFolder[Config],
    loop: LoopState,
    data: Data,
    val: EvaluationLoader,
    detector: Detector,
    accelerator: Accelerator,
    *,
    began: float,
    smoke: bool,
) -> None:
    """Looks at the test pictures, once, with the best weights; draws, sums up, says what to do next."""
    if smoke:
        loop.check_learned(SMOKE_LOSS_RATIO)
    best = best_state(run, loop)
    detector.load_state_dict(best["ema"]["module"] if run.config.ema else best["model"])
    val.order = replace(val.order, world=World())  # the other ranks have left
    threshold = evaluate(val, detector, rule_of(run.config), accelerator).best_threshold()
    deployed = Deployed(detector, data.canvas, data.mean, data.std, rule_of(run.config)).to(accelerator.device)
    split, name = (data.test, "test") if data.test is not None else (data.val, "val")
    found = detect(split, deployed, accelerator.device)
    scores = metrics.evaluate(split.pictures, found, len(data.classes))
    draw(run, split, found, scores, data.classes, threshold)
    numbers = {f"{name}_{key}": value for key, value in scores.numbers().items()}
    per_class = {text: scores.average(metrics.IOU_50, label) for label, text in enumerate(data.classes)}
    run.summarize(
        {
            **{key: none_for_nan(value) for key, value in numbers.items()},
            **{f"{name}_ap50_{text}": none_for_nan(value) for text, value in per_class.items()},
            f"num_{name}": len(split),
            "best_val_map": loop.best,
            "best_step": loop.best_step,
            "threshold": threshold,
            "steps": loop.step,
            "seconds": round(time.perf_counter() - began, 1),  # of this process, from the settings to here
        }
    )
    print(
        f"\n{name} AP50      {numbers[f'{name}_ap50']:.4f}   mAP {numbers[f'{name}_map']:.4f}, AP75 "
        f"{numbers[f'{name}_ap75']:.4f} on {len(split):,} pictures, weights of step {loop.best_step}\n"
        f"AP50 by class  {', '.join(f'{text} {value:.3f}' for text, value in per_class.items())}\n"
        f"run folder     {run.path}  (metrics.jsonl, tensorboard/, checkpoints/)\n"
        f"pictures       {run.path}/plots: curves.png, precision_recall.png, boxes.png\n"
        f"next           python -m projects.detection.export {run.path}"
    )


def none_for_nan(value: float) -> float | None:
    """The value; None where there is no true box, as JSON has no NaN."""
    return None if np.isnan(value) else value


def draw(
    run: RunFolder[Config],
    split: Split,
    found: Sequence[Found],
    scores: Scores,
    classes: Sequence[str],
    threshold: float,
) -> None:
    """Curves, precision over recall, true and predicted boxes."""
    folder = run.path / "plots"
    plots.curves(run.path, ["loss", "map", "ap50"])
    pictures.precision_recall(scores, classes, folder / "precision_recall.png")
    rows = range(0, len(split), max(1, len(split) // NUM_SHOWN))
    shown = [(split.decode(row), split.pictures[row], found[row]) for row in rows][:NUM_SHOWN]
    pictures.side_by_side(shown, classes, threshold, folder / "boxes.png")


def main() -> None:
    """The command line."""
    train(parse_arguments())


if __name__ == "__main__":
    run_command(main)
