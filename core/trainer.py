"""The one training loop: epochs and steps, accumulation, logging, evaluation, checkpoints, resuming, signals.

A project gives a `train_step` that turns a batch into named scalar tensors, and an `evaluate` that makes a whole
pass and returns named numbers. The loop never looks into a batch or a loss.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core import distributed, randomness
from core.accelerator import Accelerator
from core.config import RunConfig
from core.data import Loader
from core.errors import Stopped
from core.nonfinite import NonFinite
from core.profiling import StepProfiler
from core.progress import ProgressBar
from core.run import RunFolder
from core.signals import Interrupted, Signals
from core.training_state import LoopState, Stateful, modules_of, resume, save

B = TypeVar("B")
TrainStep = Callable[[B], Mapping[str, Tensor]]
Evaluate = Callable[[], Mapping[str, float]]


class Monitor(NamedTuple):
    """The number of `evaluate` that tells which checkpoint is best."""

    name: str
    larger_is_better: bool

    def better(self, new: float, old: float | None) -> bool:
        """Whether a value is as good as the best so far; of equals the later is kept, which has trained for longer."""
        return old is None or (new >= old if self.larger_is_better else new <= old)


def fit(
    train_step: TrainStep[B],
    loader: Loader[B],
    *,
    accelerator: Accelerator,
    state: Mapping[str, Stateful],
    run: RunFolder[Any, Any],
    evaluate: Evaluate | None = None,
    monitor: Monitor | None = None,
    smoke_loss_ratio: float | None = 0.8,
) -> LoopState:
    """Trains until the settings' epochs or steps are done, from the newest good checkpoint if the run has one.

    state: named things that training changes; all of them are saved and resumed, and the modules among them are
    in training mode in train steps. smoke_loss_ratio: the share of its first value that a --smoke run's loss has to
    fall below, if any. The ranks part at the end. Raises Stopped after saving when a signal came, NonFinite, RunError.
    """
    config, loop = run.config, LoopState()
    resume(run, loop, state, accelerator)
    last_step = total_steps(config, loader)
    samples = config.batch_size * config.accumulate
    with (
        Signals() as signals,
        ProgressBar(last_step, loop.step, samples, silent=not run.world.is_main) as progress,
        StepProfiler(run.path, accelerator, enabled=config.profile and run.world.is_main) as profiler,
        _naming_the_step(loop),
    ):
        while not _is_finished(loop, config, last_step):
            _set_training_mode(state)
            batches = loader.batches(loop.epoch, loop.batch)
            while loop.batch < len(loader) and loop.step < last_step:
                size = min(config.accumulate, len(loader) - loop.batch)
                for index in range(size):
                    with profiler.phase("data"):
                        batch = accelerator.to_device(next(batches))
                    with accelerator.micro_batch(index, size), profiler.phase("train step"):
                        loop.add(train_step(batch))
                loop.step, loop.batch = loop.step + 1, loop.batch + size
                profiler.step()
                if progress.is_due():
                    progress.show(loop.epoch, loop.step, _loss_so_far(loop))
                if loop.step % config.log_every == 0:
                    _log_training(run, loop, state, accelerator, progress)
                if stop := distributed.largest(signals.received, accelerator.device):
                    save(run, loop, state, accelerator)
                    raise _stopped(stop, run, loop)
                if config.checkpoint_every and loop.step % config.checkpoint_every == 0 and loop.batch < len(loader):
                    save(run, loop, state, accelerator)
            if loop.pending:
                _log_training(run, loop, state, accelerator, progress)
            distributed.broadcast_buffers(modules_of(state))
            numbers = None if evaluate is None else _evaluated(evaluate, signals, run, loop, state, accelerator)
            _log_evaluation(run, loop, numbers, monitor, progress)
            if loop.batch == len(loader):
                loop.epoch, loop.batch = loop.epoch + 1, 0
            save(run, loop, state, accelerator)
            if stop := distributed.largest(signals.received, accelerator.device):
                raise _stopped(stop, run, loop)
    distributed.stop()
    if run.smoke and smoke_loss_ratio is not None:
        loop.check_learned(smoke_loss_ratio)
    return loop


def _is_finished(loop: LoopState, config: RunConfig, last_step: int) -> bool:
    """Whether all steps are made, or the settings' patience is at its end, and the last weights are evaluated."""
    out_of_patience = 0 < config.patience <= loop.evaluations_without_gain
    return loop.evaluated_step == loop.step and (loop.step >= last_step or out_of_patience)


def total_steps(config: RunConfig, loader: Loader[Any]) -> int:
    """Optimizer steps of a whole training."""
    steps = config.epochs * -(-len(loader) // config.accumulate)
    return min(steps, config.max_steps or steps)


def _log_training(
    run: RunFolder[Any, Any],
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


def _evaluated(
    evaluate: Evaluate,
    signals: Signals,
    run: RunFolder[Any, Any],
    loop: LoopState,
    state: Mapping[str, Stateful],
    accelerator: Accelerator,
) -> Mapping[str, float]:
    """The numbers of an evaluation. A signal ends it at once: the step before it is saved, and Stopped is raised."""
    if run.world.size > 1:  # one rank must not leave while the others wait for its numbers
        return evaluate()
    before = randomness.get_states()
    try:
        with signals.at_once():
            return evaluate()
    except Interrupted as error:
        randomness.set_states(before)
        save(run, loop, state, accelerator)
        raise _stopped(error.signal_number, run, loop) from None


def _stopped(signal_number: int, run: RunFolder[Any, Any], loop: LoopState) -> Stopped:
    """The end that a signal asked for, after saving."""
    return Stopped(signal_number, f"stopped at step {loop.step}; continue with --resume {shlex.quote(str(run.path))}")


def _log_evaluation(
    run: RunFolder[Any, Any],
    loop: LoopState,
    numbers: Mapping[str, float] | None,
    monitor: Monitor | None,
    progress: ProgressBar,
) -> None:
    """Writes an evaluation's numbers, and notes whether this step is the best so far."""
    loop.evaluated_step = loop.step
    if numbers is not None:
        record = {"step": loop.step, "epoch": loop.epoch, **{f"val/{name}": v for name, v in numbers.items()}}
        run.log({**record, "seconds": progress.seconds()})
    numbers = numbers or {}
    if monitor is not None and monitor.better(numbers[monitor.name], loop.best):
        loop.best, loop.best_step, loop.evaluations_without_gain = numbers[monitor.name], loop.step, 0
    else:
        loop.evaluations_without_gain += 1
    shown = "  ".join(f"val {name} {value:.4f}" for name, value in numbers.items())
    loss = "" if loop.last_loss is None else f"loss {loop.last_loss:.4f}  "
    rate = f"{progress.rate(loop.step):,.0f} samples/s  {progress.left(loop.step)} left"
    progress.print(f"epoch {loop.epoch + 1:>3}  step {loop.step:>6}  {loss}{shown}  {rate}")


def _set_training_mode(state: Mapping[str, Stateful]) -> None:
    """Training mode for the modules that training changes, and for no other."""
    for thing in state.values():
        if isinstance(thing, nn.Module):
            thing.train()


def _loss_so_far(loop: LoopState) -> float:
    """The mean loss since the last line of metrics, on this rank."""
    if "loss" in loop.pending:
        return float(torch.stack(loop.pending["loss"]).mean())
    return float("nan") if loop.last_loss is None else loop.last_loss


@contextmanager
def _naming_the_step(loop: LoopState) -> Iterator[None]:
    """Adds the step to the message of a number that is not finite."""
    try:
        yield
    except NonFinite as error:
        error.args = (f"training stopped before step {loop.step + 1}: {error}",)
        raise
