"""Fine-tunes a pretrained backbone: python -m projects.transfer.train --data DIR --backbone timm:NAME|run:RUN_DIR|….

Recipe: a new head on the backbone, AdamW with rates of their own for head and layers (Howard and Ruder 2018, arXiv
1801.06146), warm-up and cosine, label smoothing, random parts of images, averaged weights, test-time flip.
"""

from core.program import TrainCommand, answer_early, parse_training, run_training
from projects.transfer.config import Config, Facts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_training, Config)

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.data import Loader
from core.distributed import World
from core.errors import UserError
from core.evaluation import Mean, count_weights, evaluating
from core.learner import Learner
from core.plots import optional
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps
from core.training_state import LoopState
from core.vision.preprocessing import mean_probabilities
from cuda_ext import build as kernels
from projects.transfer.adapt import adapt, target_accuracy
from projects.transfer.backbone import keep
from projects.transfer.coral import coral_loss
from projects.transfer.dann import DomainClassifier, domain_loss
from projects.transfer.data import Batch, Views, class_weights, evaluation_loader, training_loader
from projects.transfer.features import cached_evaluation_loader, cached_training_loader
from projects.transfer.model import Classifier, num_frozen_at, parameter_groups
from projects.transfer.optimizer import averaged_classifier, build_learner
from projects.transfer.plots import plot_run
from projects.transfer.setup import Setup

SKIPPED_NAME = "skipped.txt"


def train_step(
    batch: Batch,
    *,
    learner: Learner[nn.Module],
    network: Classifier,
    config: Config,
    class_weights: Tensor | None,
    steps: int,
) -> dict[str, Tensor]:
    """One batch: thaw what is due, logits, loss, update. Returns the mean loss and accuracy of its labeled images.

    network: of the learner, or what its head belongs to. class_weights: of the loss. steps: of the whole training.
    """
    inputs, targets = batch
    num_frozen = num_frozen_at(learner.num_steps / steps, len(network.layers), config)
    if num_frozen != network.num_frozen:
        network.freeze(num_frozen)
    with learner.accelerator.autocast():
        output = learner.forward(inputs)
    logits, domains = output if config.adapt == "dann" else (output, None)
    own, others = logits[: len(targets)], logits[len(targets) :]
    loss = F.cross_entropy(own.float(), targets, weight=class_weights, label_smoothing=config.label_smoothing)
    right = (own.detach().argmax(1) == targets.argmax(1)).mean(dtype=torch.float32)
    numbers = {"loss": loss.detach(), "accuracy": right}
    if config.adapt == "coral":
        distance = coral_loss(own, others)
        numbers["coral"] = distance.detach()
        loss = loss + config.coral_weight * distance
    if domains is not None:
        adversary = domain_loss(domains, len(targets))
        numbers["domain"] = adversary.detach()
        loss = loss + config.dann_weight * adversary
    learner.step(loss)
    return numbers


def train(command: TrainCommand[Config]) -> None:
    """The whole training, from the settings to the report."""
    accelerator = Accelerator.of(command.config)
    if command.config.strategy == "gradual" and accelerator.world.size > 1:
        raise UserError("one process only", "--strategy gradual", "start without torchrun, or give --strategy full")
    setup = Setup.of(command, accelerator)
    config, command = setup.config, replace(command, config=setup.config)
    run = RunFolder.start(command, setup.facts(), accelerator.world, kernels.for_run(accelerator.device.type))
    if run.says_complete():
        return
    if run.world.is_main:
        keep(setup.source, run.path)
    introduce(run, setup, accelerator)
    network, num_classes = setup.network, len(setup.data.classes)
    network.freeze(num_frozen_at(0.0, len(network.layers), config))
    network.to(accelerator.device).to(memory_format=torch.channels_last)
    loader, val = build_loaders(setup, config, accelerator)
    steps = total_steps(config, loader)
    domain = None
    if config.adapt == "dann":
        domain = DomainClassifier(network.num_features, steps * config.accumulate).to(accelerator.device)
    learner = build_learner(network, config, steps, accelerator, domain)
    train_weights, val_weights = (
        class_weights(images.labels, num_classes).to(accelerator.device)
        for images in (setup.data.train, setup.data.val)
    )
    loss_weights = train_weights if config.balance == "weights" else None
    loop = fit(
        partial(train_step, learner=learner, network=network, config=config, class_weights=loss_weights, steps=steps),
        loader,
        accelerator=accelerator,
        state=learner.state() if domain is None else {**learner.state(), "domain": domain},
        run=run,
        evaluate=partial(
            evaluate,
            val,
            learner.averaged if config.caches else averaged_classifier(network, learner),
            accelerator,
            val_weights if config.balance != "none" else None,
        ),
        monitor=Monitor(config.choose_by, larger_is_better=config.choose_by == "accuracy"),
        graph_key=lambda: num_frozen_at(learner.num_steps / steps, len(network.layers), config),
    )
    if run.world.is_main:
        finish(run, loop, setup, learner)


def evaluate(
    loader: Loader[Views], network: nn.Module, accelerator: Accelerator, class_weights: Tensor | None = None
) -> dict[str, float]:
    """Accuracy and cross-entropy over all images of a loader, over all ranks.

    class_weights: [num_classes], of this loader's images; with them each class counts alike in the loss, and in a
    second accuracy.
    """
    means = Mean()
    for probabilities, labels in predictions(loader, network, accelerator):
        losses = -probabilities.gather(1, labels[:, None])[:, 0].clamp(min=1e-12).log()
        right = (probabilities.argmax(1) == labels).float()
        sums = {"accuracy": right.sum()}
        if class_weights is not None:
            losses = losses * class_weights[labels]
            sums["balanced_accuracy"] = (right * class_weights[labels]).sum()
        means.add({**sums, "loss": losses.sum()}, len(labels))
    return means.result()


def predictions(loader: Loader[Views], network: nn.Module, accelerator: Accelerator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields probabilities float32 [N, num_classes], means over an image's views, and labels [N], batch by batch."""
    with evaluating(network):
        for views, labels in loader.batches(epoch=0):
            with accelerator.autocast():
                probabilities = mean_probabilities(network, views)
            yield probabilities, labels


def build_loaders(setup: Setup, config: Config, accelerator: Accelerator) -> tuple[Loader[Batch], Loader[Views]]:
    """Batches for training and validation: of images, or of features that the backbone computes now."""
    backbone, data, preprocessing, world = setup.network.backbone, setup.data, setup.preprocessing, accelerator.world
    if config.caches:
        return (
            cached_training_loader(backbone, data, preprocessing, config, accelerator),
            cached_evaluation_loader(backbone, data.val, preprocessing, config, accelerator, world),
        )
    return (
        training_loader(data, preprocessing, config, accelerator, setup.target if config.adapts_in_training else None),
        evaluation_loader(data.val, preprocessing, config, accelerator, world),
    )


def introduce(run: RunFolder[Config, Facts], setup: Setup, accelerator: Accelerator) -> None:
    """Says what is trained, from where, and on how many images; lists the images that were skipped."""
    data, network, config = setup.data, setup.network, run.config
    trained = sum(p.numel() for group in parameter_groups(network, config) for p in group["params"])
    run.say_all(data.notes)
    if data.skipped:
        run.say_all([f"skipped {len(data.skipped)} broken images, listed in {SKIPPED_NAME}; first: {data.skipped[0]}"])
        if run.world.is_main and not run.resumed:
            (run.path / SKIPPED_NAME).write_text("".join(f"{line}\n" for line in data.skipped), "utf-8")
    sizes = f"{len(data.train):,} images ({len(data.val):,} for validation, {len(data.test):,} for the test)"
    if config.strategy == "head":
        run.say("the new head alone is trained; --strategy full trains everything")
    run.say(f"{setup.source.architecture} with {setup.source.origin} weights, {len(data.classes)} classes")
    run.say(f"{count_weights(network):,} weights, {trained:,} trained, {sizes}; {accelerator.describe()}")


def finish(run: RunFolder[Config, Facts], loop: LoopState, setup: Setup, learner: Learner[nn.Module]) -> None:
    """Evaluates the best weights on the test images, once; adapts them if asked; writes plots and summary."""
    learner.load_best(run, loop)
    config, data, preprocessing, network = run.config, setup.data, setup.preprocessing, setup.network
    accelerator = learner.accelerator
    network.eval()
    batches = evaluation_loader(data.test, preprocessing, config, accelerator, World())  # the other ranks have left
    pairs = [(p.cpu(), y.cpu()) for p, y in predictions(batches, network, accelerator)]
    probabilities, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    right = (probabilities.argmax(1) == labels).double()
    balanced = float((right * class_weights(data.test.labels, len(data.classes))[labels]).mean())
    with optional():
        plot_run(run, data, network, preprocessing, accelerator, probabilities.numpy())
    adapted: dict[str, float] = {}
    if setup.target is not None:
        assert loop.best_step is not None
        if config.adapt == "adabn":
            adapted = adapt(network, setup.target, run.path, loop.best_step, preprocessing, config, accelerator)
        else:
            adapted = target_accuracy(network, setup.target, preprocessing, config, accelerator)
    numbers = {
        "test_accuracy": float(right.mean()),
        "test_balanced_accuracy": balanced,
        "num_test": len(labels),
        f"best_val_{config.choose_by}": loop.best,
        "num_skipped": len(data.skipped),
    }
    run.summarize({**numbers, **adapted, **loop.numbers()})
    on = f"on {len(labels):,} images (mean over classes {balanced:.4f}), weights of step {loop.best_step}"
    run.report({"test accuracy": f"{float(right.mean()):.4f} {on}"})


if __name__ == "__main__":
    run_training(Config, train)
