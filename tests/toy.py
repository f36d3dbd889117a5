"""A training that takes a second and has everything that resuming must bring back: dropout, running statistics,
momentum, a schedule, an average of weights, samples with random numbers of their own."""

import os
import signal
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from core import distributed
from core.accelerator import Accelerator
from core.config import RunConfig, option, parse_training
from core.data import Order, StreamLoader
from core.evaluation import Mean, evaluating
from core.optim import Ema, warmup_cosine
from core.randomness import seed_all
from core.run import RunFolder
from core.trainer import Monitor, Stateful, fit, total_steps

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class ToyConfig(RunConfig):
    epochs: int = option(3, "passes", low=1, harmless=True)
    batch_size: int = option(8, "samples of a batch", low=1)
    lr: float = option(0.01, "peak learning rate", above=0)
    log_every: int = option(4, "steps between lines", low=1)
    num_samples: int = option(90, "samples", low=1)
    poison_step: int | None = option(None, "step whose loss becomes NaN", low=1)
    fail_rank: int | None = option(None, "rank that fails", low=0)
    fail_step: int | None = option(None, "step at which it fails", low=1)
    fail_kind: str = option("kill", "kill, raise or sleep")


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


def train_step(
    batch: Batch,
    *,
    forward: nn.Module,
    optimizer: AdamW,
    scheduler: LambdaLR,
    ema: Ema | None,
    accelerator: Accelerator,
    config: ToyConfig,
) -> dict[str, Tensor]:
    vectors, labels = batch
    step = scheduler.last_epoch + 1
    if step == config.fail_step and accelerator.world.rank == config.fail_rank:
        fail(config.fail_kind)
    with accelerator.autocast():
        logits = forward(vectors)
    loss = F.cross_entropy(logits.float(), labels)
    if step == config.poison_step:
        loss = loss * float("nan")
    accelerator.step(loss, optimizer, scheduler=scheduler, ema=ema)
    return {"loss": loss.detach()}


def fail(kind: str) -> None:
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return  # only the first life of a rank is unlucky
    if kind == "raise":
        raise ValueError("this rank was asked to fail")
    os.kill(os.getpid(), signal.SIGKILL)


def evaluate(loader: StreamLoader, network: nn.Module) -> dict[str, float]:
    means = Mean()
    with evaluating(network):
        for vectors, labels in loader.batches(epoch=0):
            logits = network(vectors)
            losses = F.cross_entropy(logits, labels, reduction="sum")
            means.add({"loss": losses, "accuracy": (logits.argmax(1) == labels).sum()}, len(labels))
    return means.result()


def main(argv: list[str] | None = None) -> None:
    command = parse_training(ToyConfig, "tests.toy", {}, argv)
    config = command.config
    accelerator = Accelerator(device="cpu", precision=config.precision, clip_norm=config.clip_norm)
    seed_all(config.seed, rank=0)
    network = nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    forward = accelerator.prepare(network)
    source = Vectors(config.num_samples, seed=5)
    order = Order(len(source), config.batch_size, config.seed, world=accelerator.world)
    loader = StreamLoader(source, order, workers=config.workers)
    held_out = StreamLoader(Vectors(37, seed=6), Order(37, 8, training=False, world=accelerator.world))
    optimizer = AdamW(network.parameters(), lr=config.lr, weight_decay=0.01, fused=True)
    scheduler = LambdaLR(optimizer, warmup_cosine(total_steps(config, loader), 3))
    ema = Ema(network, config.ema) if config.ema else None
    state: dict[str, Stateful] = {"model": network, "optimizer": optimizer, "scheduler": scheduler}
    if ema is not None:
        state["ema"] = ema
    run: RunFolder[Any] = RunFolder.start(
        "toy", config, command.run_dir, resume=command.resume, facts={}, world=accelerator.world
    )
    step = partial(
        train_step,
        forward=forward,
        optimizer=optimizer,
        scheduler=scheduler,
        ema=ema,
        accelerator=accelerator,
        config=config,
    )
    judged = ema.module if ema is not None else network
    fit(
        step,
        loader,
        accelerator=accelerator,
        state=state,
        run=run,
        evaluate=partial(evaluate, held_out, judged),
        monitor=Monitor("loss", larger_is_better=False),
    )
    distributed.stop()
    run.summarize({})


if __name__ == "__main__":
    from core.errors import run_command

    torch.set_num_threads(1)
    run_command(main)
