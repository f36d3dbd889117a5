"""Trains the classifier: python -m projects.cifar10.train --data synthetic|cifar10|DIR.

Recipe: SGD with Nesterov momentum under a one-cycle rate, label smoothing (Szegedy et al. 2016, arXiv 1512.00567),
random crop, flip and cutout (DeVries and Taylor 2017, arXiv 1708.04552), averaged weights, test-time flip.
"""

from core.config import Command, answer_early, parse_training
from projects.cifar10.config import PROJECT, SMOKE, Config


def parse_arguments(argv: list[str] | None = None) -> Command[Config]:
    """The command line."""
    return parse_training(Config, "projects.cifar10.train", SMOKE, argv)


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core import distributed, plots
from core.accelerator import Accelerator
from core.data import Loader
from core.distributed import World
from core.errors import run_command
from core.evaluation import Mean, evaluating
from core.optim import Ema, decay_groups, one_cycle, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import LoopState, Monitor, Stateful, best_state, fit, total_steps
from cuda_ext import build as kernels
from projects.cifar10.data import Batch, Data, evaluation_loader, load_data, training_loader
from projects.cifar10.model import FastNet, build_model

SMOKE_LOSS_RATIO = 0.8  # a smoke run has to bring the loss below this share of its first value
NUM_MISTAKES_SHOWN = 32


def train_step(
    batch: Batch,
    *,
    forward: nn.Module,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    ema: Ema | None,
    accelerator: Accelerator,
    label_smoothing: float,
) -> dict[str, Tensor]:
    """One batch: logits, loss, update. Returns the mean loss and accuracy of the batch."""
    images, labels = batch
    with accelerator.autocast():
        logits = forward(images)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    accelerator.step(loss, optimizer, scheduler=scheduler, ema=ema)
    return {"loss": loss.detach(), "accuracy": (logits.detach().argmax(1) == labels).mean(dtype=torch.float32)}


def evaluate(loader: Loader[Batch], network: nn.Module, accelerator: Accelerator, test_flip: bool) -> dict[str, float]:
    """Accuracy and cross-entropy over all pictures of a loader, over all ranks."""
    means = Mean()
    for probabilities, labels in predictions(loader, network, accelerator, test_flip):
        losses = -probabilities.gather(1, labels[:, None]).clamp(min=1e-12).log()
        means.add({"accuracy": (probabilities.argmax(1) == labels).sum(), "loss": losses.sum()}, len(labels))
    return means.result()


def predictions(
    loader: Loader[Batch], network: nn.Module, accelerator: Accelerator, test_flip: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields probabilities float32 [N, num_classes] and labels [N], batch by batch."""
    with evaluating(network):
        for images, labels in loader.batches(epoch=0):
            with accelerator.autocast():
                probabilities = network(images).float().softmax(1)
                if test_flip:
                    probabilities = (probabilities + network(images.flip(3)).float().softmax(1)) / 2
            yield probabilities, labels


def build_optimizer(network: nn.Module, config: Config) -> Optimizer:
    """The optimizer that the settings name."""
    groups = decay_groups(network, config.weight_decay)
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, fused=True)
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def build_schedule(optimizer: Optimizer, config: Config, steps: int) -> LambdaLR:
    """The learning rate's way through all steps."""
    if config.schedule == "cosine":
        return LambdaLR(optimizer, warmup_cosine(steps, round(config.warmup * steps)))
    return LambdaLR(optimizer, one_cycle(steps, rise=config.warmup))


def train(command: Command[Config]) -> None:
    """The whole training, from the settings to the summary."""
    config, began = command.config, time.perf_counter()
    accelerator = Accelerator.of(config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    data = load_data(config, accelerator.device)
    name = config.model if config.model != "auto" else "resnet18" if accelerator.device.type == "cuda" else "fast"
    network = build_model(name, len(data.classes))
    loader = training_loader(data, config, accelerator)
    if isinstance(network, FastNet):
        whiten(network, data, config)
    forward = accelerator.prepare(network, channels_last=True)
    optimizer = build_optimizer(network, config)
    scheduler = build_schedule(optimizer, config, total_steps(config, loader))
    ema = Ema(network, config.ema) if config.ema else None
    state: dict[str, Stateful] = {"model": network, "optimizer": optimizer, "scheduler": scheduler}
    if ema is not None:
        state["ema"] = ema
    facts = {
        "model": name,
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
        "num_train": len(data.train),
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
    num_weights = sum(p.numel() for p in network.parameters())
    run.say(f"{name}, {num_weights:,} weights, {len(data.train):,} training pictures, {accelerator.describe()}")
    judged = ema.module if ema is not None else network
    loop = fit(
        partial(
            train_step,
            forward=forward,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=ema,
            accelerator=accelerator,
            label_smoothing=config.label_smoothing,
        ),
        loader,
        accelerator=accelerator,
        state=state,
        run=run,
        evaluate=partial(
            evaluate,
            evaluation_loader(data.val, data, config, accelerator, accelerator.world),
            judged,
            accelerator,
            config.test_flip,
        ),
        monitor=Monitor("accuracy", larger_is_better=True),
    )
    distributed.stop()
    if run.world.is_main:
        finish(run, loop, data, judged, accelerator, began=began, smoke=command.smoke)


def whiten(network: FastNet, data: Data, config: Config) -> None:
    """Computes the first layer's filters from some training pictures."""
    rows = range(0, len(data.train), max(1, len(data.train) // 5_000))
    pixels = torch.from_numpy(data.train.load(rows, config.image_size)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    network.whiten((pixels / 255 - mean) / std)


def finish(
    run: RunFolder[Config],
    loop: LoopState,
    data: Data,
    network: nn.Module,
    accelerator: Accelerator,
    *,
    began: float,
    smoke: bool,
) -> None:
    """Looks at the test pictures, once, with the best weights; draws, sums up, says what to do next."""
    if smoke:
        loop.check_learned(SMOKE_LOSS_RATIO)
    best = best_state(run, loop)
    network.load_state_dict(best["ema"]["module"] if run.config.ema else best["model"])
    split, name = (data.test, "test") if data.test is not None else (data.val, "val")
    batches = evaluation_loader(split, data, run.config, accelerator, World())  # the other ranks have left
    pairs = [(p.cpu(), y.cpu()) for p, y in predictions(batches, network, accelerator, run.config.test_flip)]
    probabilities = torch.cat([p for p, _ in pairs]).numpy()
    labels = torch.cat([y for _, y in pairs]).numpy()
    accuracy = float((probabilities.argmax(1) == labels).mean())
    draw(run, data, split.load(worst(probabilities, labels), run.config.image_size), probabilities, labels)
    run.summarize(
        {
            f"{name}_accuracy": accuracy,
            f"num_{name}": len(labels),
            "best_val_accuracy": loop.best,
            "best_step": loop.best_step,
            "steps": loop.step,
            "seconds": round(time.perf_counter() - began, 1),  # of this process, from the settings to here
        }
    )
    print(
        f"\n{name} accuracy  {accuracy:.4f} on {len(labels):,} pictures, weights of step {loop.best_step} "
        f"(val accuracy {loop.best:.4f})\nrun folder     {run.path}  (metrics.jsonl, tensorboard/, checkpoints/)\n"
        f"pictures       {run.path}/plots: curves.png, confusion.png, mistakes.png\n"
        f"next           python -m projects.cifar10.export {run.path}"
    )


def worst(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[int]:
    """The rows that were wrong with the most confidence, the worst first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable")[:NUM_MISTAKES_SHOWN]
    return [int(row) for row in wrong[order]]


def draw(
    run: RunFolder[Config],
    data: Data,
    mistakes: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> None:
    """Curves, confusion matrix, worst mistakes."""
    plots.curves(run.path, ["loss", "accuracy"])
    counts = np.zeros((len(data.classes), len(data.classes)), dtype=np.int64)
    np.add.at(counts, (labels, probabilities.argmax(1)), 1)
    plots.confusion(counts, data.classes, run.path / "plots" / "confusion.png")
    rows = worst(probabilities, labels)
    captions = [
        f"{data.classes[probabilities[row].argmax()]} {probabilities[row].max():.0%}\nis {data.classes[labels[row]]}"
        for row in rows
    ]
    if rows:
        title = "Wrong with the most confidence: what it said, what it is"
        plots.picture_grid(mistakes, captions, run.path / "plots" / "mistakes.png", title=title)


def main() -> None:
    """The command line."""
    train(parse_arguments())


if __name__ == "__main__":
    run_command(main)
