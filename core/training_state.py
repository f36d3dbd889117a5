"""Where a training stands, and how that goes into a checkpoint and comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from core import checkpoint, distributed, randomness
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
        """The metrics' means over steps and ranks since the last call, which are then forgotten."""
        names = sorted(self.pending)
        means = torch.stack([torch.stack(self.pending[name]).double().mean() for name in names])
        self.pending = {}
        over_ranks = distributed.sum_over_ranks(means) / distributed.num_ranks()
        return dict(zip(names, over_ranks.tolist(), strict=True))


def resume(run: RunFolder[Any, Any], loop: LoopState, state: Mapping[str, Stateful], accelerator: Accelerator) -> None:
    """Restores the newest good checkpoint of a resumed run; one that was killed before its first starts from step 0."""
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
    saved = checkpoint.load(folder, project=run.config.project)
    for name, thing in state.items():
        if name not in saved:
            raise UserError("the checkpoint lacks a part", f"{name} in {folder}", "use the version that made the run")
        if isinstance(thing, nn.Module):
            _check_fits(thing.state_dict(), saved[name], f"{name} in {folder}")
    for name, thing in state.items():
        thing.load_state_dict(saved[name])
    accelerator.load_state_dict(saved["accelerator"])
    vars(loop).update(saved["loop"])
    if len(saved["ranks"]) == run.world.size:
        mine = saved["ranks"][run.world.rank]
        randomness.set_states(mine["random"])
        loop.pending = {name: list(values) for name, values in accelerator.to_device(mine["pending"]).items()}
    run.cut_metrics(loop.step)


def save(run: RunFolder[Any, Any], loop: LoopState, state: Mapping[str, Stateful], accelerator: Accelerator) -> None:
    """Writes a checkpoint of everything that the next step depends on."""
    accelerator.check()
    distributed.broadcast_buffers(modules_of(state))
    pending = {name: torch.stack(values) for name, values in loop.pending.items()}
    mine = {"random": randomness.get_states(), "pending": pending}
    tree = {
        **{name: thing.state_dict() for name, thing in state.items()},
        "accelerator": accelerator.state_dict(),
        "loop": {name: value for name, value in vars(loop).items() if name != "pending"},
        "ranks": distributed.gather(mine),
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
