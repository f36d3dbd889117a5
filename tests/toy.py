"""A training that takes a second and has everything that resuming must bring back: dropout, running statistics,
momentum, a schedule, an average of weights, samples with random numbers of their own."""

import os
import signal
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW

from core.accelerator import Accelerator
from core.config import RunConfig, option
from core.data import Order, StreamLoader
from core.evaluation import Mean, evaluating
from core.learner import Learner
from core.optim import warmup_cosine
from core.program import TrainCommand, parse_training, run_training
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import Monitor, fit, total_steps

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    epochs: int = option(3, "passes", low=1, harmless=True)
    batch_size: int = option(8, "samples of a batch", low=1)
    lr: float = option(0.01, "peak learning rate", above=0)
    log_every: int = option(4, "steps between lines", low=1)
    num_samples: int = option(90, "samples", low=1)
    poison_step: int | None = option(None, "step whose loss becomes NaN", low=1)
    fail_rank: int | None = option(None, "rank that fails", low=0)
    fail_step: int | None = option(None, "step at which it fails", low=1)
    fail_kind: str = option("kill", "kill or raise")
    evaluation_seconds: float = option(0.0, "time that a batch of an evaluation takes", low=0)


@dataclass(frozen=True)
class ToyFacts:
    data_sha256: str = "made up"


class Vectors:
    """Noisy vectors of three classes, a source for the loader's workers."""

    def __init__(self, num: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.labels = random.integers(0, 3, num)
        self.centers = random.normal(size=(3, 8)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, index: int, random: np.random.Generator) -> tuple[NDArray[np.float32], int]:
        label = int(self.labels[index])
        return self.centers[label] + random.normal(size=8).astype(np.float32), label

    def name(self, index: int) -> str:
        return f"vector {index}"


def train_step(batch: Batch, *, learner: Learner[nn.Module], config: Config) -> dict[str, Tensor]:
    vectors, labels = batch
    step = learner.num_steps + 1
    if step == config.fail_step and learner.accelerator.world.rank == config.fail_rank:
        fail(config.fail_kind)
    with learner.accelerator.autocast():
        logits = learner.forward(vectors)
    loss = F.cross_entropy(logits.float(), labels)
    if step == config.poison_step:
        loss = loss * float("nan")
    learner.step(loss)
    return {"loss": loss.detach()}


def fail(kind: str) -> None:
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return  # only the first life of a rank is unlucky
    if kind == "raise":
        raise ValueError("this rank was asked to fail")
    os.kill(os.getpid(), signal.SIGKILL)


def evaluate(loader: StreamLoader, network: nn.Module, seconds: float = 0.0) -> dict[str, float]:
    means = Mean()
    with evaluating(network):
        for vectors, labels in loader.batches(epoch=0):
            time.sleep(seconds)
            logits = network(vectors)
            losses = F.cross_entropy(logits, labels, reduction="sum")
            means.add({"loss": losses, "accuracy": (logits.argmax(1) == labels).sum()}, len(labels))
    return means.result()


def main(argv: list[str] | None = None) -> None:
    train(parse_training(Config, argv))


def train(command: TrainCommand[Config]) -> None:
    config = command.config
    accelerator = Accelerator(device="cpu", precision=config.precision, clip_norm=config.clip_norm)
    seed_all(config.seed, rank=0)
    network = nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    source = Vectors(config.num_samples, seed=5)
    order = Order(len(source), config.batch_size, config.seed, world=accelerator.world)
    loader = StreamLoader(source, order, workers=config.workers)
    held_out = StreamLoader(Vectors(37, seed=6), Order(37, 8, training=False, world=accelerator.world))
    optimizer = AdamW(network.parameters(), lr=config.lr, weight_decay=0.01, fused=True)
    schedule = warmup_cosine(total_steps(config, loader), 3)
    learner: Learner[nn.Module] = Learner(network, optimizer, schedule, accelerator, ema=config.ema)
    run = RunFolder.start(command, ToyFacts(), accelerator.world)
    loop = fit(
        partial(train_step, learner=learner, config=config),
        loader,
        accelerator=accelerator,
        state=learner.state(),
        run=run,
        evaluate=partial(evaluate, held_out, learner.averaged, config.evaluation_seconds),
        monitor=Monitor("loss", larger_is_better=False),
    )
    run.summarize(loop.numbers())


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_training(Config, train)
