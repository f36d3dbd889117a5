"""The one training loop: epochs and steps, accumulation, logging, evaluation, checkpoints, resuming, signals.

A project gives a `train_step` that turns a batch into named scalar tensors, and an `evaluate` that makes a whole
pass and returns named numbers. The loop never looks into a batch or a loss.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core import checkpoint, distributed, randomness
from core.accelerator import Accelerator, NonFinite
from core.config import RunConfig
from core.data import Loader
from core.errors import RunError, Stopped, UserError
from core.profiling import StepProfiler
from core.progress import ProgressBar
from core.run import RunFolder

B = TypeVar("B")
TrainStep = Callable[[B], Mapping[str, Tensor]]
Evaluate = Callable[[], Mapping[str, float]]


class Stateful(Protocol):
    """What training changes, and a checkpoint therefore holds."""

    def state_dict(self) -> Any:
        """The state as a tree of tensors and plain data."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Takes the state up."""


class Monitor(NamedTuple):
    """The number of `evaluate` that tells which checkpoint is best."""

    name: str
    larger_is_better: bool

    def better(self, new: float, old: float | None) -> bool:
        """Whether a value is as good as the best so far; of equals the later is kept, which has trained for longer."""
        return old is None or (new >= old if self.larger_is_better else new <= old)


@dataclass
class LoopState:
    """Where a training stands. `batch` counts within the epoch; a checkpoint lies between optimizer steps."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_step: int | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    evaluated_step: int = -1
    evaluations_without_gain: int = 0
    pending: dict[str, list[Tensor]] = field(default_factory=dict)  # of this rank, since the last line of metrics

    def check_learned(self, ratio: float) -> None:
        """What a smoke run asserts. Raises RunError unless the last loss is below this share of the first."""
        if self.first_loss is None or self.last_loss is None or not self.last_loss < ratio * self.first_loss:
            where = f"loss {self.first_loss} → {self.last_loss}, and not below {ratio} of the first"
            raise RunError("the smoke run did not learn", where, "see its metrics")

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Takes in a train step's metrics, which stay on the device."""
        for name, value in metrics.items():
            self.pending.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """Means over ranks since they were last read; from here on they begin anew."""
        names = sorted(self.pending)
        means = torch.stack([torch.stack(self.pending[name]).double().mean() for name in names])
        self.pending = {}
        over_ranks = distributed.sum_over_ranks(means) / distributed.num_ranks()
        return dict(zip(names, over_ranks.tolist(), strict=True))


def fit(
    train_step: TrainStep[B],
    loader: Loader[B],
    *,
    accelerator: Accelerator,
    state: Mapping[str, Stateful],
    run: RunFolder[Any],
    evaluate: Evaluate | None = None,
    monitor: Monitor | None = None,
) -> LoopState:
    """Trains until the settings' epochs or steps are done, from the newest good checkpoint if the run has one.

    state: named things that training changes; all of them are saved and resumed, and the modules among them are
    in training mode in train steps. Raises Stopped after saving when a signal came, NonFinite and RunError.
    """
    config, loop = run.config, LoopState()
    resume(run, loop, state, accelerator)
    last_step = total_steps(config, loader)
    samples = config.batch_size * config.accumulate
    with (
        Signals() as signals,
        ProgressBar(last_step, loop.step, samples, silent=not run.world.is_main) as progress,
        StepProfiler(run.path, accelerator, enabled=config.profile and run.world.is_main) as profiler,
        naming_the_step(loop),
    ):
        while not is_finished(loop, config, last_step):
            set_training_mode(state)
            batches = loader.batches(loop.epoch, loop.batch)
            while loop.batch < len(loader) and loop.step < last_step:
                size = min(config.accumulate, len(loader) - loop.batch)
                for index in range(size):
                    with profiler.phase("data"):
                        batch = accelerator.to_device(next(batches))
                    accelerator.micro_batch(index, size)
                    with profiler.phase("train step"):
                        loop.add(train_step(batch))
                loop.step, loop.batch = loop.step + 1, loop.batch + size
                profiler.step()
                if progress.is_due():
                    progress.show(loop.epoch, loop.step, loss_so_far(loop))
                if loop.step % config.log_every == 0:
                    log_training(run, loop, state, accelerator, progress)
                if stop := distributed.largest(signals.received, accelerator.device):
                    save(run, loop, state, accelerator)
                    raise Stopped(stop, f"stopped at step {loop.step}; continue with --resume {run.path}")
                if config.checkpoint_every and loop.step % config.checkpoint_every == 0 and loop.batch < len(loader):
                    save(run, loop, state, accelerator)
            if loop.pending:
                log_training(run, loop, state, accelerator, progress)
            accelerator.synchronize(modules_of(state))
            log_evaluation(run, loop, evaluate, monitor, progress)
            if loop.batch == len(loader):
                loop.epoch, loop.batch = loop.epoch + 1, 0
            save(run, loop, state, accelerator)
    return loop


def is_finished(loop: LoopState, config: RunConfig, last_step: int) -> bool:
    """Whether all steps are made, or the settings' patience is at its end, and the last weights are evaluated."""
    out_of_patience = 0 < config.patience <= loop.evaluations_without_gain
    return loop.evaluated_step == loop.step and (loop.step >= last_step or out_of_patience)


def total_steps(config: RunConfig, loader: Loader[Any]) -> int:
    """Optimizer steps of a whole training."""
    steps = config.epochs * -(-len(loader) // config.accumulate)
    return min(steps, config.max_steps or steps)


def resume(run: RunFolder[Any], loop: LoopState, state: Mapping[str, Stateful], accelerator: Accelerator) -> None:
    """Takes up the newest good checkpoint; a resumed run that was killed before its first one begins anew."""
    randomness.seed_all(run.config.seed, run.world.rank)
    if not run.resumed:
        return
    folder = None
    if run.world.is_main and checkpoint.folders(run.path):
        folder = checkpoint.newest_good(run.path)
    folder = distributed.from_main(folder)
    if folder is None:
        run.cut_metrics(-1)
        return
    saved = checkpoint.load(folder, project=run.project)
    for name, thing in state.items():
        if name not in saved:
            raise UserError("the checkpoint lacks a part", f"{name} in {folder}", "use the version that made the run")
        if isinstance(thing, nn.Module):
            check_fits(thing.state_dict(), saved[name], f"{name} in {folder}")
    for name, thing in state.items():
        thing.load_state_dict(saved[name])
    accelerator.load_state_dict(saved["accelerator"])
    vars(loop).update(saved["loop"])
    if len(saved["ranks"]) == run.world.size:
        mine = saved["ranks"][run.world.rank]
        randomness.set_states(mine["random"])
        loop.pending = {name: list(values) for name, values in accelerator.to_device(mine["pending"]).items()}
    run.cut_metrics(loop.step)


def best_state(run: RunFolder[Any], loop: LoopState) -> dict[str, Any]:
    """The state that was best in validation, by the names that `fit` was given; an Ema's weights are under "module"."""
    return checkpoint.load(run.path / "checkpoints" / f"step-{loop.best_step:08d}")


def save(run: RunFolder[Any], loop: LoopState, state: Mapping[str, Stateful], accelerator: Accelerator) -> None:
    """Writes a checkpoint of everything that the next step depends on."""
    accelerator.check()
    accelerator.synchronize(modules_of(state))
    pending = {name: torch.stack(values) for name, values in loop.pending.items()}
    mine = {"random": randomness.get_states(), "pending": pending}
    tree = {
        **{name: thing.state_dict() for name, thing in state.items()},
        "accelerator": accelerator.state_dict(),
        "loop": {name: value for name, value in vars(loop).items() if name != "pending"},
        "ranks": distributed.gather(mine),
    }
    run.save(loop.step, tree, loop.best_step)


def log_training(
    run: RunFolder[Any],
    loop: LoopState,
    state: Mapping[str, Stateful],
    accelerator: Accelerator,
    progress: ProgressBar,
) -> None:
    """Writes the means of the train steps since the last line."""
    accelerator.check()
    means = loop.means()
    loop.last_loss = means.get("loss")
    loop.first_loss = loop.last_loss if loop.first_loss is None else loop.first_loss
    record: dict[str, Any] = {"step": loop.step, "epoch": loop.epoch}
    record.update({f"train/{name}": value for name, value in means.items()})
    optimizers = {name: thing for name, thing in state.items() if isinstance(thing, Optimizer)}
    for name, optimizer in optimizers.items():
        record["lr" if len(optimizers) == 1 else f"lr/{name}"] = float(optimizer.param_groups[0]["lr"])
    if accelerator.precision == "fp16":
        record["skipped"] = accelerator.skipped
    run.log({**record, "seconds": progress.seconds(), "samples_per_second": progress.rate(loop.step)})


def log_evaluation(
    run: RunFolder[Any],
    loop: LoopState,
    evaluate: Evaluate | None,
    monitor: Monitor | None,
    progress: ProgressBar,
) -> None:
    """Evaluates, writes the numbers, and notes whether this step is the best so far."""
    loop.evaluated_step = loop.step
    numbers: Mapping[str, float] = {}
    if evaluate is not None:
        numbers = evaluate()
        record = {"step": loop.step, "epoch": loop.epoch, **{f"val/{name}": v for name, v in numbers.items()}}
        run.log({**record, "seconds": progress.seconds()})
    if monitor is not None and monitor.better(numbers[monitor.name], loop.best):
        loop.best, loop.best_step, loop.evaluations_without_gain = numbers[monitor.name], loop.step, 0
    else:
        loop.evaluations_without_gain += 1
    shown = "  ".join(f"val {name} {value:.4f}" for name, value in numbers.items())
    loss = "" if loop.last_loss is None else f"loss {loop.last_loss:.4f}  "
    rate = f"{progress.rate(loop.step):,.0f} samples/s  {progress.left(loop.step)} left"
    progress.print(f"epoch {loop.epoch + 1:>3}  step {loop.step:>6}  {loss}{shown}  {rate}")


def set_training_mode(state: Mapping[str, Stateful]) -> None:
    """Training mode for the modules that training changes, and for no other."""
    for thing in state.values():
        if isinstance(thing, nn.Module):
            thing.train()


def modules_of(state: Mapping[str, Stateful]) -> list[nn.Module]:
    """The modules in a state, averaged ones too."""
    candidates = [thing if isinstance(thing, nn.Module) else getattr(thing, "module", None) for thing in state.values()]
    return [module for module in candidates if isinstance(module, nn.Module)]


def loss_so_far(loop: LoopState) -> float:
    """The mean loss since the last line of metrics, on this rank."""
    if "loss" in loop.pending:
        return float(torch.stack(loop.pending["loss"]).mean())
    return float("nan") if loop.last_loss is None else loop.last_loss


def check_fits(live: Mapping[str, Tensor], saved: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError, before anything is changed, for the first tensor that the network does not have so."""
    for name in [*live, *saved]:
        have, given = (described(side.get(name)) for side in (live, saved))
        if have != given:
            problem = f"{name} is {given}, the network has {have}"
            raise UserError("the checkpoint does not fit the network", f"{where}: {problem}", "use the run's settings")


def described(tensor: Tensor | None) -> str:
    """A tensor's dtype and shape."""
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


@contextmanager
def naming_the_step(loop: LoopState) -> Iterator[None]:
    """Adds the step to the message of a number that is not finite."""
    try:
        yield
    except NonFinite as error:
        error.args = (f"training stopped before step {loop.step + 1}: {error}",)
        raise


class Signals:
    """Notes SIGINT, SIGTERM and SIGHUP for the next step; a second SIGINT does not wait for it."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number
