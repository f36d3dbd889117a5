"""Short trainings for the studies: the train program's own step, optimizer and schedule, without a run folder."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from core.accelerator import Accelerator
from core.config import check
from core.distributed import World
from core.learner import Learner
from core.nonfinite import NonFinite
from core.randomness import seed_all
from projects.cifar10.config import Config
from projects.cifar10.data import Data, evaluation_loader, load_data, training_loader
from projects.cifar10.distillation import Distillation
from projects.cifar10.study_options import StudyOptions
from projects.cifar10.train import begin_network, build_optimizer, build_schedule, evaluate, train_step

_SCHEDULE_POINTS = 1_000
_NUM_JUDGED = 300  # validation images; the slowest network needs many seconds for them on one core


@dataclass(frozen=True)
class Training:
    """What a short training gave.

    losses: of each step. accuracy: on at most 300 validation images; None where the training diverged. seconds:
    processor time of the steps, on a GPU wall time.
    """

    losses: list[float]
    accuracy: float | None
    seconds: float
    num_images: int

    @property
    def images_per_second(self) -> float:
        """Images trained on in a second."""
        return self.num_images / max(self.seconds, 1e-9)

    def last_loss(self, num_steps: int) -> float:
        """The mean loss of the last steps; infinite where the training diverged or made none."""
        tail = self.losses[-num_steps:]
        return float("inf") if self.accuracy is None or not tail else sum(tail) / len(tail)


def settings(options: StudyOptions, **changes: Any) -> Config:
    """The train program's settings for a study: no averaged weights, which short trainings do not live up to.

    Raises UserError for values that cannot be, and for data that is not there.
    """
    shared = ("data", "batch_size", "image_size", "num_synthetic", "seed", "device", "precision")
    given = {name: getattr(options, name) for name in shared}
    no_mirroring = options.data in ("digits", "mnist")
    flips = {"flip": not no_mirroring, "test_flip": False}
    config = Config(**{"ema": 0.0, "label_smoothing": 0.0, **flips, **given, **changes})
    check(config)
    config.check_present(resuming=False)
    return config


def load(config: Config, device: torch.device, num_judged: int = _NUM_JUDGED) -> Data:
    """The data, with at most so many validation images, taken at equal distances: folders are read class by class."""
    data = load_data(config, device)
    rows = np.linspace(0, len(data.val) - 1, min(num_judged, len(data.val))).astype(np.int64)
    return replace(data, val=data.val.take(rows))


def network_for(name: str, data: Data, config: Config) -> nn.Module:
    """A network as the train program begins with it, from the settings' seed. Raises UserError for a wrong size."""
    seed_all(config.seed, rank=0)
    return begin_network(name, data, config)


def by_steps(steps: int) -> Callable[[int], float]:
    """The share of a training that is done at a step, of so many steps."""
    return lambda step: step / steps


def by_seconds(seconds: float, device: torch.device) -> Callable[[int], float]:
    """The share of a training that is done by now, of so many seconds from the first call on."""
    began: list[float] = []

    def share(_: int) -> float:
        if not began:
            began.append(clock(device))
        return (clock(device) - began[0]) / seconds

    return share


def clock(device: torch.device) -> float:
    """Seconds of this process's processor time, which other programs do not lengthen; on a GPU of wall time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def train_shortly(
    network: nn.Module,
    data: Data,
    config: Config,
    share: Callable[[int], float],
    *,
    watch: Callable[[int], AbstractContextManager[Any]] = lambda step: nullcontext(),
    distillation: Distillation | None = None,
) -> Training:
    """Trains until `share` of the steps made reaches 1, and judges the network.

    watch: a context in which each step runs, from its number. distillation: a teacher, if there is one. A training
    whose numbers stop being finite has diverged.
    """
    accelerator = Accelerator.of(config)
    shape = build_schedule(config, _SCHEDULE_POINTS)
    optimizer = build_optimizer(network, config)
    points = _SCHEDULE_POINTS - 1
    learner = Learner(
        network, optimizer, lambda step: shape(min(points, int(points * share(step)))), accelerator, channels_last=True
    )
    loader = training_loader(data, config, accelerator)
    network.train()
    losses: list[torch.Tensor] = []
    began, step, epoch, diverged = clock(accelerator.device), 0, 0, False
    try:
        while share(step) < 1:
            for batch in loader.batches(epoch):
                with watch(step):
                    numbers = train_step(
                        accelerator.to_device(batch),
                        learner=learner,
                        label_smoothing=config.label_smoothing,
                        distillation=distillation,
                    )
                losses.append(numbers["loss"])
                step += 1
                if share(step) >= 1:
                    break
            epoch += 1
        accelerator.check()
    except NonFinite:
        diverged = True
    seconds = clock(accelerator.device) - began
    values = [float(loss) for loss in losses]
    accuracy = None if diverged else judged(network, data, config, accelerator)
    return Training(values, accuracy, seconds, step * config.batch_size)


def judged(network: nn.Module, data: Data, config: Config, accelerator: Accelerator) -> float:
    """The accuracy on the validation images."""
    loader = evaluation_loader(data.val, data, config, accelerator, World())
    return evaluate(loader, network, accelerator, config.test_flip)["accuracy"]
