"""Fine-tunes a pretrained backbone: python -m projects.transfer.train --data DIR --backbone timm:NAME|run:RUN_DIR|….

Recipe: a new head on the backbone, AdamW with rates of their own for head and layers (Howard and Ruder 2018, arXiv
1801.06146), warm-up and cosine, label smoothing, random parts of pictures, averaged weights, test-time flip.
"""

from core.config import Command, answer_early, parse_training
from projects.transfer.config import PROJECT, SMOKE, Config, check_present


def parse_arguments(argv: list[str] | None = None) -> Command[Config]:
    """The command line."""
    command = parse_training(Config, "projects.transfer.train", SMOKE, argv)
    if not command.resume:  # a run that is taken up has its backbone in its own folder
        check_present(command.config)
    return command


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_arguments)

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core import distributed
from core.accelerator import Accelerator
from core.data import Loader
from core.distributed import World
from core.errors import UserError, run_command
from core.evaluation import Mean, evaluating
from core.optim import Ema, warmup_cosine
from core.run import RunFolder
from core.trainer import LoopState, Monitor, Stateful, best_state, fit, total_steps
from cuda_ext import build as kernels
from projects.transfer import pictures
from projects.transfer.adapt import adapt
from projects.transfer.data import class_weights
from projects.transfer.features import cached_evaluation_loader, cached_training_loader
from projects.transfer.loaders import Batch, Views, evaluation_loader, training_loader
from projects.transfer.model import Classifier, num_frozen_at, parameter_groups
from projects.transfer.parts import Parts
from projects.transfer.restore import trained_weights
from projects.transfer.source import keep

SMOKE_LOSS_RATIO = 0.8  # a smoke run has to bring the loss below this share of its first value


def train_step(
    batch: Batch,
    *,
    network: Classifier,
    forward: nn.Module,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    ema: Ema | None,
    accelerator: Accelerator,
    config: Config,
    class_weights: Tensor | None,
    steps: int,
) -> dict[str, Tensor]:
    """One batch: thaw what is due, logits, loss, update. Returns the mean loss and accuracy of the batch.

    forward: the network, or its head where inputs are features. class_weights: of the loss. steps: of the training.
    """
    inputs, targets = batch
    num_frozen = num_frozen_at(scheduler.last_epoch / steps, len(network.layers), config)
    if num_frozen != network.num_frozen:
        network.freeze(num_frozen)
    with accelerator.autocast():
        logits = forward(inputs)
    loss = F.cross_entropy(logits.float(), targets, weight=class_weights, label_smoothing=config.label_smoothing)
    accelerator.step(loss, optimizer, scheduler=scheduler, ema=ema)
    right = logits.detach().argmax(1) == targets.argmax(1)
    return {"loss": loss.detach(), "accuracy": right.mean(dtype=torch.float32)}


def evaluate(
    loader: Loader[Views], judged: nn.Module, accelerator: Accelerator, class_weights: Tensor | None = None
) -> dict[str, float]:
    """Accuracy and cross-entropy over all pictures of a loader, over all ranks.

    class_weights: [num_classes], of this loader's pictures; with them each class counts alike in the loss, and in a
    second accuracy.
    """
    means = Mean()
    for probabilities, labels in predictions(loader, judged, accelerator):
        losses = -probabilities.gather(1, labels[:, None])[:, 0].clamp(min=1e-12).log()
        right = (probabilities.argmax(1) == labels).float()
        sums = {"accuracy": right.sum()}
        if class_weights is not None:
            losses = losses * class_weights[labels]
            sums["balanced_accuracy"] = (right * class_weights[labels]).sum()
        means.add({**sums, "loss": losses.sum()}, len(labels))
    return means.result()


def predictions(loader: Loader[Views], judged: nn.Module, accelerator: Accelerator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields probabilities float32 [N, num_classes], means over a picture's views, and labels [N], batch by batch."""
    with evaluating(judged):
        for views, labels in loader.batches(epoch=0):
            with accelerator.autocast():
                parts = [judged(view).float().softmax(1) for view in views]
            yield torch.stack(parts).mean(0), labels


def build_optimizer(network: Classifier, config: Config) -> Optimizer:
    """The optimizer that the settings name, with a group for each rate; frozen parts are in none."""
    groups = parameter_groups(network, config)
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, fused=True)
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def build_schedule(optimizer: Optimizer, config: Config, steps: int) -> LambdaLR:
    """Each group's way through all steps: warm-up and cosine from where it begins, nothing before."""

    def factor(begin: int) -> Any:
        shape = warmup_cosine(steps - begin, round(config.warmup * (steps - begin)))
        return lambda step: shape(step - begin) if step >= begin else 0.0

    return LambdaLR(optimizer, [factor(min(steps - 1, math.ceil(g["begins"] * steps))) for g in optimizer.param_groups])


def train(command: Command[Config]) -> None:
    """The whole training, from the settings to the summary."""
    config, began = command.config, time.perf_counter()
    accelerator = Accelerator.of(config)
    if config.strategy == "gradual" and accelerator.world.size > 1:
        raise UserError("one process only", "--strategy gradual", "start without torchrun, or give --strategy full")
    parts = Parts.of(command, accelerator)
    network = parts.network
    network.freeze(num_frozen_at(0.0, len(network.layers), config))
    network.to(accelerator.device).to(memory_format=torch.channels_last)
    kernels.ensure(accelerator.device.type)
    run = RunFolder.start(
        PROJECT,
        config,
        command.run_dir,
        resume=command.resume,
        facts=parts.facts(),
        world=accelerator.world,
        environment=kernels.status(accelerator.device.type).plain(),
    )
    if run.says_complete():
        return
    if run.world.is_main:
        keep(parts.source, run.path)
    introduce(run, parts, accelerator)
    loader, val = build_loaders(parts, config, accelerator)
    # What training changes: of a network with a frozen backbone the head alone.
    trained: nn.Module = network.head if config.strategy == "head" else network
    forward = accelerator.prepare(network.head if config.caches else network)
    optimizer = build_optimizer(network, config)
    steps = total_steps(config, loader)
    scheduler = build_schedule(optimizer, config, steps)
    ema = Ema(trained, config.ema) if config.ema else None
    state: dict[str, Stateful] = {"model": trained, "optimizer": optimizer, "scheduler": scheduler}
    if ema is not None:
        state["ema"] = ema
    averaged = trained if ema is None else ema.module
    judged = nn.Sequential(network.backbone, averaged) if config.strategy == "head" else averaged
    train_weights, val_weights = (
        class_weights(split.labels, len(parts.data.classes)).to(accelerator.device)
        for split in (parts.data.train, parts.data.val)
    )
    loop = fit(
        partial(
            train_step,
            network=network,
            forward=forward,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=ema,
            accelerator=accelerator,
            config=config,
            class_weights=train_weights if config.balance == "weights" else None,
            steps=steps,
        ),
        loader,
        accelerator=accelerator,
        state=state,
        run=run,
        evaluate=partial(
            evaluate,
            val,
            averaged if config.caches else judged,
            accelerator,
            val_weights if config.balance != "none" else None,
        ),
        monitor=Monitor("loss", larger_is_better=False),  # a few validation pictures tell losses apart, not accuracies
    )
    distributed.stop()
    if run.world.is_main:
        finish(run, loop, parts, accelerator, began=began, smoke=command.smoke)


def build_loaders(parts: Parts, config: Config, accelerator: Accelerator) -> tuple[Loader[Batch], Loader[Views]]:
    """Batches for training and validation: of pictures, or of features that the backbone gives here and now."""
    backbone, data, look, world = parts.network.backbone, parts.data, parts.look, accelerator.world
    if config.caches:
        return (
            cached_training_loader(backbone, data, look, config, accelerator),
            cached_evaluation_loader(backbone, data.val, look, config, accelerator, world),
        )
    return (
        training_loader(data, look, config, accelerator),
        evaluation_loader(data.val, look, config, accelerator, world),
    )


def introduce(run: RunFolder[Config], parts: Parts, accelerator: Accelerator) -> None:
    """Says what is trained, from where, and on how many pictures."""
    data, network = parts.data, parts.network
    all_weights = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for g in parameter_groups(network, run.config) for p in g["params"])
    run.say(
        f"{parts.source.architecture}, weights: {parts.source.origin}; {all_weights:,} weights, {trained:,} trained"
    )
    run.say(
        f"{len(data.classes)} classes; {len(data.train):,} pictures for training, {len(data.val):,} for validation, "
        f"{len(data.test):,} for the test, seen at {parts.look.size} pixels; {accelerator.describe()}"
    )
    if data.skipped:
        run.say(f"skipped {len(data.skipped)} broken pictures, listed in run.json; first: {data.skipped[0]}")


def finish(
    run: RunFolder[Config], loop: LoopState, parts: Parts, accelerator: Accelerator, *, began: float, smoke: bool
) -> None:
    """Looks at the test pictures, once, with the best weights; draws, adapts, sums up, says what to do next."""
    if smoke:
        loop.check_learned(SMOKE_LOSS_RATIO)
    config, data, look, network = run.config, parts.data, parts.look, parts.network
    trained = network.head if config.strategy == "head" else network
    trained.load_state_dict(trained_weights(best_state(run, loop)))
    network.eval()
    batches = evaluation_loader(data.test, look, config, accelerator, World())  # the other ranks have left
    pairs = [(p.cpu(), y.cpu()) for p, y in predictions(batches, network, accelerator)]
    probabilities, labels = torch.cat([p for p, _ in pairs]), torch.cat([y for _, y in pairs])
    right = (probabilities.argmax(1) == labels).double()
    balanced = float((right * class_weights(data.test.labels, len(data.classes))[labels]).mean())
    drawn = pictures.draw(run, data, network, look, accelerator, probabilities.numpy())
    print(
        f"\ntest accuracy  {float(right.mean()):.4f} on {len(labels):,} pictures (mean over classes {balanced:.4f}), "
        f"weights of step {loop.best_step}"
    )
    adapted = {}
    if parts.target is not None:
        assert loop.best_step is not None
        adapted = adapt(network, parts.target, run.path, loop.best_step, look, config, accelerator)
    run.summarize(
        {
            "test_accuracy": float(right.mean()),
            "test_balanced_accuracy": balanced,
            "num_test": len(labels),
            "best_val_loss": loop.best,
            "best_step": loop.best_step,
            "steps": loop.step,
            "num_skipped": len(data.skipped),
            **adapted,
            "seconds": round(time.perf_counter() - began, 1),  # of this process, from the settings to here
        }
    )
    print(
        f"run folder     {run.path}  (metrics.jsonl, tensorboard/, checkpoints/)\n"
        f"pictures       {run.path}/plots: {', '.join(drawn)}\n"
        f"next           python -m projects.transfer.export {run.path}"
    )


def main() -> None:
    """The command line."""
    train(parse_arguments())


if __name__ == "__main__":
    run_command(main)
