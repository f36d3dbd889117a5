"""How fast the network learns: python -m projects.cifar10.speedrun --runs 10 --data cifar10 [any flag of train].

Each run trains a new network from another seed and judges it once on the test images. Its seconds count from the first
step to the last prediction, as Jordan 2024 (arXiv 2404.00498) counts them: with CUDA graphs, captures and test-time
mirroring, without reading the data, without a run folder and without validation. A few steps come before, in which
kernels are built.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.command_line import add_options, flag
from core.config import check, option
from core.errors import UserError, run_command
from core.files import write_json
from core.program import answer_early, project_parser
from projects.cifar10.config import Config

_WARMUP_STEPS = 8
_OF_RUN_FOLDERS = ("accumulate", "patience", "checkpoint_every", "keep", "log_every", "profile", "teacher")


@dataclass(frozen=True, kw_only=True)
class SpeedrunConfig(Config):
    """The train program's settings, the number of runs, and where the result goes."""

    runs: int = option(10, "trainings, with seeds from --seed on", low=1, high=1000)
    output: Path | None = option(None, "JSON file for the result")


def parse(argv: Sequence[str] | None = None) -> SpeedrunConfig:
    """Reads the command line. Raises UserError."""
    parser = project_parser(SpeedrunConfig, "speedrun")
    add_options(parser, SpeedrunConfig)
    given = vars(parser.parse_args(argv))
    given.pop("debug")
    if other := [name for name in _OF_RUN_FOLDERS if name in given]:
        raise UserError("not a setting of a speedrun", flag(other[0]), "leave it out")
    config = SpeedrunConfig.from_given(given)
    check(config)
    config.check_present(resuming=False)
    if config.output is not None and config.output.exists():
        raise UserError("it exists already", f"--output {config.output}", "give another name")
    return config


if __name__ == "__main__":  # --help and a wrong flag are answered here, before torch is loaded
    answer_early(parse)

import torch

from core.accelerator import Accelerator
from core.distributed import World
from core.environment import environment
from core.learner import Learner
from core.plain import to_plain
from core.randomness import seed_all
from core.step_graphs import step_graphs
from core.trainer import total_steps
from projects.cifar10.data import Data, evaluation_loader, load_data, training_loader
from projects.cifar10.train import begin_network, build_optimizer, build_schedule, predictions, train_step


@dataclass(frozen=True)
class Run:
    """One training: its seed, the test accuracy, and the seconds of training and prediction together."""

    seed: int
    accuracy: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, prints a line a run and the mean, and writes the result."""
    config, began = parse(argv), time.perf_counter()
    accelerator = Accelerator.of(config)
    data = load_data(config, accelerator.device)
    if data.test is None:
        raise UserError("no test images", f"--data {config.data}", "give data with a test split")
    one_run(replace(config, max_steps=_WARMUP_STEPS), data)
    print(f"{accelerator.describe()}; ready after {time.perf_counter() - began:.1f} s")
    runs = []
    for number in range(config.runs):
        runs.append(one_run(replace(config, seed=config.seed + number), data))
        print(f"seed {runs[-1].seed:>4}  accuracy {runs[-1].accuracy:.4f}  {runs[-1].seconds:.2f} s", flush=True)
    accuracies, seconds = [run.accuracy for run in runs], [run.seconds for run in runs]
    spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
    print(f"mean of {len(runs)}  accuracy {statistics.fmean(accuracies):.4f} ± {spread:.4f}", end="  ")
    print(f"{statistics.fmean(seconds):.2f} s ({min(seconds):.2f}–{max(seconds):.2f})")
    if config.output is not None:
        write_json(config.output, result(config, runs))


def one_run(config: SpeedrunConfig, data: Data) -> Run:
    """Trains a new network with a seed and judges it on the test images."""
    assert data.test is not None
    accelerator = Accelerator.of(config)
    seed_all(config.seed, rank=0)
    network = begin_network(config.model, data, config)
    loader = training_loader(data, config, accelerator)
    steps = total_steps(config, loader)
    schedule = build_schedule(config, steps)
    optimizer = build_optimizer(network, config)
    learner = Learner(network, optimizer, schedule, accelerator, ema=config.ema, channels_last=True)
    step = partial(train_step, learner=learner, label_smoothing=config.label_smoothing)
    state = learner.state()
    graphs, _ = step_graphs(
        step, accelerator, state, lambda: "step", mode=config.graph, accumulates=False, profiles=False
    )
    test = evaluation_loader(data.test, data, config, accelerator, World())
    network.train()
    synchronize(accelerator.device)
    began, done = time.perf_counter(), 0
    with graphs:
        for epoch in range(config.epochs):
            for batch in loader.batches(epoch):
                if done < steps:
                    graphs(accelerator.to_device(batch))
                    done += 1
    accelerator.check()
    right = torch.zeros((), dtype=torch.int64, device=accelerator.device)
    views = (config.test_flip, config.test_shift)
    for probabilities, labels in predictions(test, learner.averaged, accelerator, *views):
        right += (probabilities.argmax(1) == labels).sum()
    return Run(config.seed, int(right) / len(data.test), time.perf_counter() - began)


def synchronize(device: torch.device) -> None:
    """Waits for all work that a GPU has queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def result(config: SpeedrunConfig, runs: Sequence[Run]) -> dict[str, Any]:
    """What the runs depend on, and their numbers."""
    settings = {name: value for name, value in to_plain(config).items() if name != "output"}
    if "/" in config.data:
        settings["data"] = "DIR"
    machine = environment(World())
    return {"settings": settings, "environment": machine, "runs": [to_plain(run) for run in runs]}


if __name__ == "__main__":
    run_command(main)
