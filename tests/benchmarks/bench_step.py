"""What one optimizer step costs round the arithmetic: core's `fit` with everything on, loops by hand, and peers.

A multilayer perceptron 64→64→10 on batches of 32 is so small that nearly all of a step is the price of the loop. The
data lie in memory; every side makes a batch by the same gather of shuffled rows, and a clock in that gather times
whole turns of the loop, so that setting up, evaluating and the last checkpoint are outside and logging is inside.
"""

import argparse
import contextlib
import io
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from core.accelerator import Accelerator
from core.config import RunConfig, RunFacts
from core.data import BatchLoader, Order
from core.distributed import World
from core.learner import Learner
from core.optim import warmup_cosine
from core.program import TrainCommand
from core.run import RunFolder
from core.trainer import fit
from tests.benchmarks import measure
from tests.benchmarks.measure import StepClock

BATCH, WIDTH, CLASSES = 32, 64, 10
LR, LOG_EVERY, EMA_DECAY, CLIP_NORM = 1e-3, 50, 0.99, 1.0
BASELINE, OURS = "by hand", "core.fit, everything on"


class Problem:
    """Inputs and labels in memory, and the clock of one measurement."""

    def __init__(self, warmup: int, steps: int) -> None:
        self.clock = StepClock(warmup, steps)
        generator = torch.Generator().manual_seed(0)
        self.num_samples = self.clock.num_batches * BATCH
        self.inputs = torch.randn(self.num_samples, WIDTH, generator=generator)
        self.labels = torch.randint(0, CLASSES, (self.num_samples,), generator=generator)

    def __len__(self) -> int:
        return self.clock.num_batches

    def make_batch(self, rows: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """The batch of some rows."""
        self.clock.tick()
        return self.inputs[rows], self.labels[rows]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch as a loop by hand would take it."""
        for rows in torch.randperm(self.num_samples).split(BATCH):
            yield self.make_batch(rows)


class ReadyMade(Problem):
    """The same batches, all made beforehand."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch without the cost of making batches."""
        for batch in list(zip(self.inputs.split(BATCH), self.labels.split(BATCH), strict=True)):
            self.clock.tick()
            yield batch


def build_network() -> nn.Sequential:
    """The perceptron."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))


def by_hand(problem: Problem, *, fused: bool | None = None) -> None:
    """The shortest loop there is."""
    network = build_network()
    optimizer = AdamW(network.parameters(), lr=LR, fused=fused)
    for inputs, labels in problem:
        loss = F.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def by_hand_with_everything(problem: Problem, folder: Path) -> None:
    """What core.fit does, the way that tutorials do it: a number read at every step, torch's own parts."""
    network = build_network()
    optimizer = AdamW(network.parameters(), lr=LR)
    scheduler = LambdaLR(optimizer, warmup_cosine(len(problem), 10))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    total_loss = total_accuracy = 0.0
    for step, (inputs, labels) in enumerate(problem, start=1):
        logits = network(inputs)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        scheduler.step()
        average.update_parameters(network)
        value = loss.item()
        if not math.isfinite(value):
            raise RuntimeError("the loss is not finite")
        total_loss += value
        total_accuracy += (logits.argmax(1) == labels).float().mean().item()
        if step % LOG_EVERY == 0:
            record = {"step": step, "loss": total_loss / LOG_EVERY, "accuracy": total_accuracy / LOG_EVERY}
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({**record, "lr": scheduler.get_last_lr()[0]}) + "\n")
            total_loss = total_accuracy = 0.0


def train_step(batch: tuple[Tensor, Tensor], *, learner: Learner[nn.Sequential]) -> dict[str, Tensor]:
    """A project's train step, in the words of projects/*/train.py."""
    inputs, labels = batch
    with learner.accelerator.autocast():
        logits = learner.forward(inputs)
    loss = F.cross_entropy(logits.float(), labels)
    learner.step(loss)
    return {"loss": loss.detach(), "accuracy": (logits.detach().argmax(1) == labels).mean(dtype=torch.float32)}


def core_fit(problem: Problem, folder: Path) -> None:
    """core.trainer.fit with clipping, averaged weights, schedule, two metrics, logging, checks and a run folder."""
    config = RunConfig(
        epochs=1, batch_size=BATCH, lr=LR, device="cpu", precision="fp32", log_every=LOG_EVERY,
        clip_norm=CLIP_NORM, ema=EMA_DECAY,
    )  # fmt: skip
    accelerator, network = Accelerator.of(config), build_network()
    optimizer = AdamW(network.parameters(), lr=LR, fused=True)
    learner = Learner(network, optimizer, warmup_cosine(len(problem), 10), accelerator, ema=config.ema)
    loader = BatchLoader(problem.make_batch, Order(problem.num_samples, BATCH))
    facts = RunFacts(model="perceptron", num_train=problem.num_samples, data_sha256="noise")
    run = RunFolder.start(TrainCommand(config, folder / "run"), facts, World())
    fit(partial(train_step, learner=learner), loader, accelerator=accelerator, state=learner.state(), run=run)


def lightning_fabric(problem: Problem) -> None:
    """Lightning Fabric round the shortest loop."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    network = build_network()
    network, optimizer = fabric.setup(network, AdamW(network.parameters(), lr=LR))
    for inputs, labels in problem:
        loss = F.cross_entropy(network(inputs), labels)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def lightning_trainer(problem: Problem, folder: Path, *, logs: bool, bar: bool) -> None:
    """Lightning's Trainer; with `logs` and `bar` these are its defaults, and two metrics."""
    import lightning

    class Task(lightning.LightningModule):  # type: ignore[misc]
        """The perceptron as Lightning wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.network = build_network()

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            inputs, labels = batch
            logits = self.network(inputs)
            loss = F.cross_entropy(logits, labels)
            if logs:
                self.log("loss", loss, prog_bar=bar)
                self.log("accuracy", (logits.detach().argmax(1) == labels).float().mean(), prog_bar=bar)
            return loss

        def configure_optimizers(self) -> AdamW:
            return AdamW(self.parameters(), lr=LR)

    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=None if logs else False,
        enable_checkpointing=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        log_every_n_steps=LOG_EVERY,
    )
    trainer.fit(Task(), problem)


def accelerate(problem: Problem, *, clip: bool) -> None:
    """Hugging Face Accelerate round the shortest loop."""
    from accelerate import Accelerator as Peer

    peer = Peer(cpu=True, mixed_precision="no")
    network = build_network()
    network, optimizer = peer.prepare(network, AdamW(network.parameters(), lr=LR))
    for inputs, labels in problem:
        loss = F.cross_entropy(network(inputs), labels)
        peer.backward(loss)
        if clip:
            peer.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()


def sides() -> dict[str, tuple[Callable[..., None], type[Problem], str | None]]:
    """Every side with its problem and the package that it needs; a loop with a `folder` argument gets an empty one."""
    return {
        BASELINE: (by_hand, Problem, None),
        "by hand, batches ready made": (by_hand, ReadyMade, None),
        "by hand, AdamW(fused=True)": (partial(by_hand, fused=True), Problem, None),
        OURS: (core_fit, Problem, None),
        "by hand, everything the usual way": (by_hand_with_everything, Problem, None),
        "Lightning Fabric": (lightning_fabric, Problem, "lightning"),
        "Lightning Trainer, all off": (partial(lightning_trainer, logs=False, bar=False), Problem, "lightning"),
        "Lightning Trainer, logging": (partial(lightning_trainer, logs=True, bar=False), Problem, "lightning"),
        "Lightning Trainer, logging, bar": (partial(lightning_trainer, logs=True, bar=True), Problem, "lightning"),
        "Accelerate": (partial(accelerate, clip=False), Problem, "accelerate"),
        "Accelerate, clipping": (partial(accelerate, clip=True), Problem, "accelerate"),
    }


NEEDS_FOLDER = ("core_fit", "by_hand_with_everything", "lightning_trainer")


def once(loop: Callable[..., None], problem_class: type[Problem], warmup: int, steps: int) -> dict[str, float]:
    """Times of one step of a loop, in a folder of its own, with what it prints thrown away."""
    problem = problem_class(warmup, steps)
    name = loop.func.__name__ if isinstance(loop, partial) else loop.__name__
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            if name in NEEDS_FOLDER:
                loop(problem, folder=Path(folder))
            else:
                loop(problem)
    return problem.clock.microseconds_per_step()


def choose(arguments: argparse.Namespace) -> tuple[dict[str, measure.Side], dict[str, str]]:
    """The sides that can be measured here, and why the others cannot."""
    measured: dict[str, measure.Side] = {}
    skipped: dict[str, str] = {}
    for name, (loop, problem_class, package) in sides().items():
        if package is not None and arguments.no_peers:
            skipped[name] = "--no-peers"
        elif package is not None and find_spec(package) is None:
            skipped[name] = f"{package} is not installed"
        else:
            measured[name] = partial(once, loop, problem_class, arguments.warmup, arguments.steps)
    return measured, skipped


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = measure.parser("step", "Cost of one optimizer step of a tiny network.", rounds=9)
    flags.add_argument("--steps", type=int, default=300, help="measured steps a round (default: %(default)s)")
    flags.add_argument("--warmup", type=int, default=30, help="steps before the clock starts (default: %(default)s)")
    flags.add_argument("--no-peers", action="store_true", help="leave out what is not this project's")
    arguments = flags.parse_args(argv)
    measure.use_threads(arguments.threads)
    for logger in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric", "accelerate"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    measured, skipped = choose(arguments)
    # Importing Lightning alone makes every step of the process a third slower, the loop by hand too. So this
    # project's sides come first, in a process that has seen no peer, and then all together.
    columns = {"processor_us": "processor µs", "wall_us": "wall µs"}
    groups = {"step": [name for name in measured if sides()[name][2] is None]}
    if len(measured) > len(groups["step"]):
        groups["step, peers loaded"] = list(measured)
    tables = {}
    for group, names in groups.items():
        for name in names:  # the first use of a library is not a step
            measured[name]()
        rows = measure.summarize(
            measure.interleaved({name: measured[name] for name in names}, arguments.rounds), BASELINE
        )
        measure.show(f"One optimizer {group}; {WIDTH}→{WIDTH}→{CLASSES}, batch {BATCH}, fp32", rows, columns, BASELINE)
        tables[group] = rows
    measure.write("step", argv, arguments, tables, skipped, baseline=BASELINE, ours=OURS)


if __name__ == "__main__":
    main()
