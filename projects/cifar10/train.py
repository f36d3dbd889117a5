"""Trains the classifier: python -m projects.cifar10.train --data synthetic|cifar10|DIR.

Recipe: Muon, or SGD with Nesterov momentum under a one-cycle rate; label smoothing (Szegedy et al. 2016, arXiv
1512.00567), random crop, flip and cutout (DeVries and Taylor 2017, arXiv 1708.04552), averaged weights, test-time flip.
"""

from core.program import TrainCommand, answer_early, parse_training, run_training
from projects.cifar10.config import Config, Facts

if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse_training, Config)

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from core import plots
from core.accelerator import Accelerator
from core.data import Loader
from core.distributed import World
from core.evaluation import Mean, count_weights, evaluating
from core.learner import Learner, Schedule
from core.muon import Muon
from core.optim import Combined, decay_groups, one_cycle, step_decay, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps
from core.training_state import LoopState
from core.vision.classification_report import plot_results
from core.vision.network_file import FILE_NAME, save_network
from core.vision.preprocessing import mean_probabilities, views_of
from cuda_ext import build as kernels
from projects.cifar10.checkpointing import checkpoint_stages
from projects.cifar10.data import Batch, Data, evaluation_loader, load_data, training_loader
from projects.cifar10.distillation import Distillation, load_teacher
from projects.cifar10.model import build_model, check_image_size
from projects.cifar10.networks.fast import FastNet

_FEW_IMAGES = 500  # of validation: their accuracy is not known to two points, and the rate falls to zero anyway


def train_step(
    batch: Batch, *, learner: Learner[nn.Module], label_smoothing: float, distillation: Distillation | None = None
) -> dict[str, Tensor]:
    """One batch: logits, loss, update. Returns the mean loss and accuracy of the batch."""
    images, labels = batch
    with learner.accelerator.autocast():
        logits = learner.forward(images)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    if distillation is not None:
        with learner.accelerator.autocast():
            targets = distillation.targets(images)
        loss = distillation.mixed(loss, logits.float(), targets)
    learner.step(loss)
    return {"loss": loss.detach(), "accuracy": (logits.detach().argmax(1) == labels).mean(dtype=torch.float32)}


def train(command: TrainCommand[Config]) -> None:
    """The whole training, from the settings to the report."""
    config, accelerator = command.config, Accelerator.of(command.config)
    seed_all(config.seed, rank=0)  # all ranks begin with the same weights
    data = load_data(config, accelerator.device)
    network = begin_network(config.model, data, config)
    loader = training_loader(data, config, accelerator)
    schedule = build_schedule(config, total_steps(config, loader))
    optimizer = build_optimizer(network, config)
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema, channels_last=True)
    facts = Facts(
        model=config.model,
        classes=tuple(data.classes),
        mean=data.mean,
        std=data.std,
        num_train=len(data.train),
        data_sha256=data.sha256,
    )
    distillation = load_teacher(config, facts, accelerator.device)
    run = RunFolder.start(command, facts, accelerator.world, kernels.for_run(accelerator.device.type))
    if run.says_complete():
        return
    run.say_all(data.notes)
    run.say(f"{config.model}, {count_weights(network):,} weights, {len(data.train):,} images; {accelerator.describe()}")
    val = evaluation_loader(data.val, data, config, accelerator, accelerator.world)
    loop = fit(
        partial(train_step, learner=learner, label_smoothing=config.label_smoothing, distillation=distillation),
        loader,
        accelerator=accelerator,
        state=learner.state(),
        run=run,
        evaluate=partial(evaluate, val, learner.averaged, accelerator, config.test_flip, config.test_shift),
        monitor=Monitor(
            "accuracy", larger_is_better=True, takes_last=len(data.val) < _FEW_IMAGES and not config.patience
        ),
        graph_key=lambda: "step",
    )
    if run.world.is_main:
        finish(run, loop, data, learner)


def evaluate(
    loader: Loader[Batch], network: nn.Module, accelerator: Accelerator, test_flip: bool, test_shift: bool = False
) -> dict[str, float]:
    """Accuracy and cross-entropy over all images of a loader, over all ranks."""
    means = Mean()
    for probabilities, labels in predictions(loader, network, accelerator, test_flip, test_shift):
        losses = -probabilities.gather(1, labels[:, None]).clamp(min=1e-12).log()
        means.add({"accuracy": (probabilities.argmax(1) == labels).sum(), "loss": losses.sum()}, len(labels))
    return means.result()


def predictions(
    loader: Loader[Batch], network: nn.Module, accelerator: Accelerator, test_flip: bool, test_shift: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields probabilities float32 [N, num_classes] and labels [N], batch by batch."""
    with evaluating(network):
        for images, labels in loader.batches(epoch=0):
            with accelerator.autocast():
                probabilities = mean_probabilities(network, views_of(images, flip=test_flip, shift=test_shift))
            yield probabilities, labels


def begin_network(name: str, data: Data, config: Config) -> nn.Module:
    """A network as training begins with it. Raises UserError for an image size that it does not take."""
    network = build_model(name, len(data.classes))
    check_image_size(network, name, config.image_size)
    if isinstance(network, FastNet):
        whiten(network, data)
    if config.gradient_checkpointing:
        checkpoint_stages(network, name)
    return network


def build_optimizer(network: nn.Module, config: Config) -> Optimizer:
    """The optimizer that the settings name."""
    if config.optimizer == "muon":
        return _muon(network, config)
    groups = decay_groups(network, config.weight_decay)
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, fused=True)
    if config.optimizer == "adam":
        return Adam(groups, lr=config.lr, fused=True)
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def _muon(network: nn.Module, config: Config) -> Optimizer:
    """Muon for filters and matrices but the last, which gives logits; AdamW at a tenth of the rate for the rest."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.weight.requires_grad]
    hidden = [layer.weight for layer in layers[:-1]]
    chosen = {id(weight) for weight in hidden}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in chosen]
    return Combined(
        Muon(
            hidden,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fixed_norm=config.fixed_norm,
        ),
        AdamW(rest, lr=0.1 * config.lr, weight_decay=0.0, fused=True),
    )


def build_schedule(config: Config, steps: int) -> Schedule:
    """The learning rate at each of `steps` steps, as a factor of the peak rate."""
    if config.schedule == "cosine":
        return warmup_cosine(steps, round(config.warmup * steps))
    if config.schedule == "step":
        return step_decay(steps)
    if config.schedule == "constant":
        return lambda step: 1.0
    return one_cycle(steps, rise=config.warmup)


def whiten(network: FastNet, data: Data) -> None:
    """Computes the first layer's filters from some training images."""
    rows = range(0, len(data.train), max(1, len(data.train) // 5_000))
    pixels = torch.from_numpy(data.train.load(rows)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    network.whiten((pixels / 255 - mean) / std)


def finish(run: RunFolder[Config, Facts], loop: LoopState, data: Data, learner: Learner[nn.Module]) -> None:
    """Evaluates the best weights on the test images, once; writes plots, summary and the network for other projects."""
    learner.load_best(run, loop)
    images, name = (data.test, "test") if data.test is not None else (data.val, "val")
    accelerator, config, facts = learner.accelerator, run.config, run.facts
    batches = evaluation_loader(images, data, config, accelerator, World())  # the other ranks have left
    predicted = predictions(batches, learner.averaged, accelerator, config.test_flip, config.test_shift)
    pairs = [(p.cpu(), y.cpu()) for p, y in predicted]
    probabilities, labels = (torch.cat(parts).numpy() for parts in zip(*pairs, strict=True))
    accuracy = float((probabilities.argmax(1) == labels).mean())
    with plots.optional():
        plots.curves(run.path, ["loss", "accuracy"])
        plot_results(run.path / "plots", facts.classes, probabilities, labels, images.load)
    size, normalization = config.image_size, {"mean": facts.mean, "std": facts.std}
    path = run.path / FILE_NAME
    save_network(  # not the averaged copy, of which no weight takes a gradient
        path, learner.network, architecture=facts.model, image_size=size, classes=facts.classes, **normalization
    )
    numbers = {f"{name}_accuracy": accuracy, f"num_{name}": len(labels), "best_val_accuracy": loop.best}
    run.summarize({**numbers, **loop.numbers()})
    on = f"on {len(labels):,} images, weights of step {loop.best_step} (val accuracy {loop.best:.4f})"
    run.report({f"{name} accuracy": f"{accuracy:.4f} {on}"})


if __name__ == "__main__":
    run_training(Config, train)
