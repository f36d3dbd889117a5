"""A network and what trains it: optimizer, learning-rate schedule, moving average, as one noun with one verb."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core import checkpoint
from core.accelerator import Accelerator
from core.optim import Ema
from core.run import RunFolder
from core.training_state import LoopState, Stateful

N = TypeVar("N", bound=nn.Module)
Schedule = Callable[[int], float]  # the factor of the peak learning rate at a step


class Learner(Generic[N]):
    """A network with its optimizer, schedule and moving average. A classifier has one learner, a GAN has two.

    network: what training changes; it is moved to the device in place.
    optimizer: of the network's parameters.
    schedule: factor of the peak learning rate at a step, or one for each of the optimizer's parameter groups.
    ema: decay of the moving average of the weights per step, in [0, 1); 0 keeps none.
    channels_last: the memory format that convolutions are fastest in.
    whole: what a train step calls, where the network is only a part of it, such as the head on a frozen backbone.
    """

    def __init__(
        self,
        network: N,
        optimizer: Optimizer,
        schedule: Schedule | Sequence[Schedule],
        accelerator: Accelerator,
        *,
        ema: float = 0.0,
        channels_last: bool = False,
        whole: nn.Module | None = None,
    ) -> None:
        self.network, self.optimizer, self.accelerator = network, optimizer, accelerator
        self.forward = accelerator.prepare(network if whole is None else whole, channels_last=channels_last)
        self.scheduler = LambdaLR(optimizer, schedule if callable(schedule) else list(schedule))
        self.ema = Ema(network, ema) if ema else None

    def step(self, loss: Tensor) -> None:
        """One batch's backward pass and, at the end of an accumulation window, the update; see Accelerator.step.

        loss: scalar, a mean over the batch. Raises NonFinite before a weight changes.
        """
        self.accelerator.step(loss, self.optimizer, scheduler=self.scheduler, ema=self.ema)

    @property
    def averaged(self) -> N:
        """The network to evaluate and to export: with averaged weights where there is an average."""
        return self.network if self.ema is None else self.ema.module

    @property
    def num_steps(self) -> int:
        """Updates so far."""
        return self.scheduler.last_epoch

    def state(self, prefix: str = "") -> dict[str, Stateful]:
        """What a checkpoint holds of this learner, by name: model, optimizer, scheduler and, if there is one, ema."""
        parts: dict[str, Any] = {
            "model": self.network,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "ema": self.ema,
        }
        return {f"{prefix}{name}": part for name, part in parts.items() if part is not None}

    def load_best(self, run: RunFolder[Any, Any], loop: LoopState, prefix: str = "") -> None:
        """Gives the network, and the average where there is one, the weights that were best in validation: averaged
        ones where there is an average."""
        names = [f"{prefix}model", f"{prefix}ema"]
        saved = checkpoint.load(checkpoint.folder_of(run.path, loop.best_step or loop.step), only=names)
        weights = averaged_weights(saved, prefix)
        self.network.load_state_dict(weights)
        if self.ema is not None:
            self.ema.module.load_state_dict(weights)


def averaged_weights(saved: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """The weights of `averaged` in a checkpoint that holds a Learner.state(prefix)."""
    ema = saved.get(f"{prefix}ema")
    weights: dict[str, Tensor] = saved[f"{prefix}model"] if ema is None else ema["module"]
    return weights
