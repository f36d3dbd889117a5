"""The one training loop: epochs and steps, accumulation, logging, evaluation, checkpoints, resuming, signals.

A project gives a `train_step` that turns a batch into named scalar tensors, and an `evaluate` that makes a whole
pass and returns named numbers. The loop never looks into a batch or a loss.
"""

import shlex
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from core import distributed
from core.accelerator import Accelerator
from core.config import RunConfig
from core.data import Loader
from core.device_use import DeviceUse
from core.errors import Stopped
from core.nonfinite import NonFinite
from core.profiling import StepProfiler
from core.progress import ProgressBar
from core.run import RunFolder
from core.signals import Interrupted, Signals
from core.step_graphs import step_graphs
from core.training_log import (
    gradient_norms,
    log_evaluation,
    log_training,
    loss_so_far,
    weights_for_histograms,
)
from core.training_state import LoopState, Stateful, modules_of, ranks_states, resume, save

B = TypeVar("B")
TrainStep = Callable[[B], Mapping[str, Tensor]]
Evaluate = Callable[[], Mapping[str, float]]


class Monitor(NamedTuple):
    """The number of `evaluate` that tells which checkpoint is best.

    takes_last: the newest is, whatever the number: where too few samples are evaluated to tell checkpoints apart.
    """

    name: str
    larger_is_better: bool
    takes_last: bool = False

    def better(self, new: float, old: float | None) -> bool:
        """Whether a value is as good as the best so far; of equals the later is kept, which has trained for longer."""
        return old is None or self.takes_last or (new >= old if self.larger_is_better else new <= old)


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
    graph_key: Callable[[], Hashable] | None = None,
) -> LoopState:
    """Trains until the settings' epochs or steps are done, from the newest good checkpoint if the run has one.

    state: named things that training changes; all of them are saved and resumed, and the modules among them are
    in training mode in train steps. smoke_loss_ratio: the share of its first value that a --smoke run's loss has to
    fall below, if any. graph_key: names the work of the next train step, for a GPU that replays steps as CUDA graphs:
    steps of one name and one shape of batch do the same work and look at no number; None where they do not. The ranks
    part at the end. Raises Stopped after saving when a signal came, NonFinite, RunError.
    """
    config, loop = run.config, LoopState()
    if monitor is not None:
        run.set_monitor(monitor.name, monitor.larger_is_better)
    resume(run, loop, state, accelerator)
    last_step = total_steps(config, loader)
    samples = config.batch_size * config.accumulate
    accumulates, profiles = config.accumulate > 1, config.profile
    graphs, note = step_graphs(
        train_step, accelerator, state, graph_key, mode=config.graph, accumulates=accumulates, profiles=profiles
    )
    if note is not None:
        run.say(f"note: train steps are not replayed as CUDA graphs: {note}")
    use = DeviceUse.of(accelerator.device)
    with (
        Signals() as signals,
        ProgressBar(last_step, loop.step, samples, silent=not run.world.is_main) as progress,
        StepProfiler(run.path, accelerator, enabled=config.profile and run.world.is_main) as profiler,
        _naming_the_step(loop),
        graphs,
    ):
        while not _is_finished(loop, config, last_step):
            _set_training_mode(state)
            batches = loader.batches(loop.epoch, loop.batch)
            while loop.batch < len(loader) and loop.step < last_step:
                size = min(config.accumulate, len(loader) - loop.batch)
                for index in range(size):
                    with profiler.phase("data"):
                        batch = _next_batch(batches, index == 0, signals, run, loop, state, accelerator)
                    with accelerator.micro_batch(index, size), profiler.phase("train step"), use.step():
                        loop.add(graphs(batch))
                loop.step, loop.batch = loop.step + 1, loop.batch + size
                loop.add(gradient_norms(state, accelerator))
                profiler.step()
                if progress.is_due():
                    progress.show(loop.epoch, loop.step, loss_so_far(loop))
                if loop.step % config.log_every == 0:
                    log_training(run, loop, state, accelerator, progress, use)
                if stop := distributed.largest(signals.received, accelerator.device):
                    save(run, loop, state, accelerator)
                    raise _stopped(stop, run, loop)
                if config.checkpoint_every and loop.step % config.checkpoint_every == 0 and loop.batch < len(loader):
                    save(run, loop, state, accelerator)
            if loop.pending:
                log_training(run, loop, state, accelerator, progress, use)
            distributed.broadcast_buffers(modules_of(state))
            numbers = None if evaluate is None else _evaluated(evaluate, signals, run, loop, state, accelerator)
            log_evaluation(run, loop, numbers, progress)
            _keep_best(loop, numbers, monitor)
            if run.world.is_main:  # the others have nothing to write them into
                run.log_histograms(weights_for_histograms(state))
            if loop.batch == len(loader):
                loop.epoch, loop.batch = loop.epoch + 1, 0
            save(run, loop, state, accelerator)
            if stop := distributed.largest(signals.received, accelerator.device):
                raise _stopped(stop, run, loop)
    run.device_use = use.whole()
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


def _evaluated(
    evaluate: Evaluate,
    signals: Signals,
    run: RunFolder[Any, Any],
    loop: LoopState,
    state: Mapping[str, Stateful],
    accelerator: Accelerator,
) -> Mapping[str, float]:
    """The numbers of an evaluation. A signal ends it at once: the step before it is saved, and Stopped is raised.

    Of several ranks the first one saves and leaves; the others notice it when they next wait for it.
    """
    ranks = ranks_states(loop)
    try:
        with signals.at_once() if run.world.is_main else nullcontext():
            return evaluate()
    except Interrupted as error:
        save(run, loop, state, accelerator, ranks)
        raise _stopped(error.signal_number, run, loop) from None
    except RuntimeError:
        if run.world.is_main or not signals.received:
            raise
        raise _stopped(signals.received, run, loop) from None


def _next_batch(
    batches: Iterator[Any],
    is_unchanged: bool,
    signals: Signals,
    run: RunFolder[Any, Any],
    loop: LoopState,
    state: Mapping[str, Stateful],
    accelerator: Accelerator,
) -> Any:
    """A batch on the device. A signal does not wait for it: the step before is saved, and Stopped is raised.

    is_unchanged: whether nothing has changed since that step. Of several ranks none can leave without the others.
    """
    if not is_unchanged or run.world.size > 1:
        return accelerator.to_device(next(batches))
    try:
        with signals.at_once():
            return accelerator.to_device(next(batches))
    except Interrupted as error:
        save(run, loop, state, accelerator)
        raise _stopped(error.signal_number, run, loop) from None


def _keep_best(loop: LoopState, numbers: Mapping[str, float] | None, monitor: Monitor | None) -> None:
    """Notes that this step is evaluated, and whether it is the best so far."""
    loop.evaluated_step = loop.step
    if monitor is not None and numbers is not None and monitor.better(numbers[monitor.name], loop.best):
        loop.best, loop.best_step, loop.evaluations_without_gain = numbers[monitor.name], loop.step, 0
    else:
        loop.evaluations_without_gain += 1


def _stopped(signal_number: int, run: RunFolder[Any, Any], loop: LoopState) -> Stopped:
    """The end that a signal asked for, after saving."""
    return Stopped(signal_number, f"stopped at step {loop.step}; continue with --resume {shlex.quote(str(run.path))}")


def _set_training_mode(state: Mapping[str, Stateful]) -> None:
    """Training mode for the modules that training changes, and for no other."""
    for thing in state.values():
        if isinstance(thing, nn.Module):
            thing.train()


@contextmanager
def _naming_the_step(loop: LoopState) -> Iterator[None]:
    """Adds the step to the message of a number that is not finite."""
    try:
        yield
    except NonFinite as error:
        error.args = (f"training stopped before step {loop.step + 1}: {error}",)
        raise
