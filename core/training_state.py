"""Where a training stands, and how that goes into a checkpoint and comes back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from core import checkpoint, distributed, randomness, retention
from core.accelerator import Accelerator
from core.errors import RunError, UserError
from core.run import RunFolder


class Stateful(Protocol):
    """What training changes, and a checkpoint therefore holds."""

    def state_dict(self) -> Any:
        """The state as a tree of tensors and plain data."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restores that state."""


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

    def numbers(self) -> dict[str, int | None]:
        """What a run's summary says of the loop."""
        return {"best_step": self.best_step, "steps": self.step}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Keeps a train step's metrics, which stay on the device, for the next line of metrics."""
        for name, value in metrics.items():
            self.pending.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """The metrics' means over steps and ranks since the last call, which are then forgotten.

        NaN stands for a step without that number, such as the gradient's norm where fp16 skipped an update.
        """
        names = sorted(self.pending)
        means = torch.stack([torch.stack(self.pending[name]).double().nanmean() for name in names])
        self.pending = {}
        over_ranks = distributed.sum_over_ranks(means) / distributed.num_ranks()
        return dict(zip(names, over_ranks.tolist(), strict=True))


def resume(run: RunFolder[Any, Any], loop: LoopState, state: Mapping[str, Stateful], accelerator: Accelerator) -> None:
    """Restores the newest good checkpoint of a resumed run; one that was killed before its first starts from step 0.

    Checkpoints that cannot be restored are said and renamed. Raises UserError, with nothing renamed, where none can, or
    where one is sound but does not fit the network.
    """
    randomness.seed_all(run.config.seed, run.world.rank)
    if not run.resumed:
        return
    found = iter(reversed(checkpoint.folders(run.path)) if run.world.is_main else ())
    broken: list[str] = []
    while (folder := distributed.from_main(next(found, None))) is not None:
        problem = ""
        try:
            num_lines = _restore(folder, run, loop, state, accelerator)
        except torch.OutOfMemoryError:
            raise
        except (checkpoint.Broken, KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            problem = f"{type(error).__name__}: {error}".removeprefix("Broken: ")
        problems = [each for each in distributed.gather(problem) if each]
        if not problems:
            break
        broken.append(f"{folder.name}: {problems[0]}")
        if run.world.is_main:
            checkpoint.say_broken(folder, problems[0])
    else:
        if broken:
            raise checkpoint.no_good_one(run.path, broken)
        run.cut_metrics(0)
        return
    run.cut_metrics(num_lines)
    if run.world.is_main:
        retention.set_aside_after(folder)
    _forget_lost_best(run, loop)
    _follow_schedules(run, state)


def _restore(
    folder: Path, run: RunFolder[Any, Any], loop: LoopState, state: Mapping[str, Stateful], accelerator: Accelerator
) -> int:
    """Gives everything the state of a checkpoint; returns the lines of metrics.jsonl at that time."""
    saved = checkpoint.load(folder, project=run.config.project)
    for name, thing in state.items():
        if name not in saved:
            raise UserError("the checkpoint lacks a part", f"{name} in {folder}", "use the version that made the run")
        if isinstance(thing, nn.Module):
            _check_fits(thing.state_dict(), saved[name], f"{name} in {folder}")
    place, ranks, num_lines = _place(saved["loop"]), saved["ranks"], saved["metrics_lines"]
    if checkpoint.folder_of(run.path, place.step) != folder or not isinstance(num_lines, int):
        raise ValueError(f"it is of step {place.step}")
    for name, thing in state.items():
        thing.load_state_dict(saved[name])
    accelerator.load_state_dict(saved["accelerator"])
    if len(ranks) == run.world.size:
        mine = ranks[run.world.rank]
        randomness.set_states(mine["random"])
        place.pending = {name: list(values) for name, values in accelerator.to_device(mine["pending"]).items()}
    vars(loop).update(vars(place))
    return int(num_lines)


def _place(saved: Mapping[str, Any]) -> LoopState:
    """The loop's state in a checkpoint. Raises ValueError for one with other entries or types."""
    allowed: dict[str, tuple[type, ...]] = {"best_step": (int, type(None))}
    allowed.update(dict.fromkeys(("best", "first_loss", "last_loss"), (float, int, type(None))))
    names = [field.name for field in fields(LoopState) if field.name != "pending"]
    if sorted(saved) != sorted(names) or not all(isinstance(saved[n], allowed.get(n, (int,))) for n in names):
        raise ValueError("its place in the training is not what this version writes")
    return LoopState(**saved)


def _forget_lost_best(run: RunFolder[Any, Any], loop: LoopState) -> None:
    """Chooses the best checkpoint anew where the one that was best is lost."""
    is_lost = False
    if run.world.is_main and loop.best_step is not None:
        try:
            checkpoint.verify(checkpoint.folder_of(run.path, loop.best_step))
        except checkpoint.Broken as error:
            is_lost = True
            run.note(f"the best checkpoint, of step {loop.best_step}, is lost ({error}); the best is chosen anew")
    if distributed.from_main(is_lost):
        loop.best, loop.best_step, loop.evaluations_without_gain = None, None, 0


def _follow_schedules(run: RunFolder[Any, Any], state: Mapping[str, Stateful]) -> None:
    """Sets the learning rates that the schedules have at this step: with other epochs, those stored are of another."""
    for scheduler in (thing for thing in state.values() if isinstance(thing, LambdaLR)):
        peaks, factors, step = scheduler.base_lrs, scheduler.lr_lambdas, scheduler.last_epoch
        rates: list[Any] = [peak * factor(step) for peak, factor in zip(peaks, factors, strict=True)]
        groups = scheduler.optimizer.param_groups
        old, new = float(groups[0]["lr"]), float(rates[0])
        for group, rate in zip(groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        scheduler._last_lr = rates
        if not math.isclose(old, new, rel_tol=1e-5):
            run.note(f"the schedule is another for this length: the learning rate {old:.3g} becomes {new:.3g}")


def ranks_states(loop: LoopState) -> list[Any]:
    """What each rank has of its own: its generators and its metrics since the last line. Every rank has to ask."""
    pending = {name: torch.stack(values) for name, values in loop.pending.items()}
    return distributed.gather({"random": randomness.get_states(), "pending": pending})


def save(
    run: RunFolder[Any, Any],
    loop: LoopState,
    state: Mapping[str, Stateful],
    accelerator: Accelerator,
    ranks: list[Any] | None = None,
) -> None:
    """Writes a checkpoint of everything that the next step depends on.

    ranks: ranks_states() of a moment since which nothing has changed; rank 0 then saves without the others.
    """
    accelerator.check()
    if ranks is None:
        distributed.broadcast_buffers(modules_of(state))
        ranks = ranks_states(loop)
    tree = {
        **{name: thing.state_dict() for name, thing in state.items()},
        "accelerator": accelerator.state_dict(),
        "loop": {name: value for name, value in vars(loop).items() if name != "pending"},
        "ranks": ranks,
        "metrics_lines": run.num_lines,
    }
    run.save(loop.step, tree, loop.best_step)


def modules_of(state: Mapping[str, Stateful]) -> list[nn.Module]:
    """The modules in a state, averaged ones too."""
    candidates = [thing if isinstance(thing, nn.Module) else getattr(thing, "module", None) for thing in state.values()]
    return [module for module in candidates if isinstance(module, nn.Module)]


def _check_fits(live: Mapping[str, Tensor], saved: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError, before anything is changed, for the first tensor that the network does not have so."""
    for name in [*live, *saved]:
        have, given = (_described(side.get(name)) for side in (live, saved))
        if have != given:
            problem = f"{name} is {given}, the network has {have}"
            raise UserError("the checkpoint does not fit the network", f"{where}: {problem}", "use the run's settings")


def _described(tensor: Tensor | None) -> str:
    """A tensor's dtype and shape."""
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
