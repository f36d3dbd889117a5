"""What a training writes of itself: lines of means and of evaluations, norms of gradients, histograms of weights."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from core.accelerator import Accelerator
from core.device_use import DeviceUse
from core.environment import peak_memory
from core.progress import ProgressBar
from core.run import RunFolder
from core.training_state import LoopState, Stateful

_HISTOGRAM_WEIGHTS = 4096  # at most, of one matrix


def log_training(
    run: RunFolder[Any, Any],
    loop: LoopState,
    state: Mapping[str, Stateful],
    accelerator: Accelerator,
    progress: ProgressBar,
    use: DeviceUse,
) -> None:
    """Writes the means of the train steps since the last line."""
    accelerator.check()
    means = loop.means()
    loop.last_loss = means.get("loss")
    loop.first_loss = loop.last_loss if loop.first_loss is None else loop.first_loss
    record: dict[str, Any] = {"step": loop.step, "epoch": loop.epoch}
    record.update({f"train/{name}": value for name, value in means.items()})
    optimizers = _optimizers(state)
    for name, optimizer in optimizers.items():
        record["lr" if len(optimizers) == 1 else f"lr/{name}"] = float(optimizer.param_groups[0]["lr"])
    if accelerator.precision == "fp16":
        record["skipped"] = accelerator.update.skipped
    costs = {"seconds": progress.seconds(), "samples_per_second": progress.rate(loop.step), **use.take()}
    if accelerator.device.type == "cuda":
        costs["peak_device_memory_mb"] = peak_memory()["peak_device_memory_mb"]
    run.log({**record, **costs})


def log_evaluation(
    run: RunFolder[Any, Any],
    loop: LoopState,
    numbers: Mapping[str, float] | None,
    progress: ProgressBar,
) -> None:
    """Writes and prints an evaluation's numbers."""
    if numbers is not None:
        record = {"step": loop.step, "epoch": loop.epoch, **{f"val/{name}": v for name, v in numbers.items()}}
        run.log({**record, "seconds": progress.seconds()})
    shown = "  ".join(f"val {name} {value:.4f}" for name, value in (numbers or {}).items())
    loss = "" if loop.last_loss is None else f"loss {loop.last_loss:.4f}  "
    rate = f"{progress.rate(loop.step):,.0f} samples/s  {progress.left(loop.step)} left"
    progress.print(f"epoch {loop.epoch + 1:>3}  step {loop.step:>6}  {loss}{shown}  {rate}")


def gradient_norms(state: Mapping[str, Stateful], accelerator: Accelerator) -> dict[str, Tensor]:
    """The norms of the step's gradients as metrics, under one name where there is one optimizer."""
    norms, optimizers = accelerator.update.take_gradient_norms(), _optimizers(state)
    names = {id(each): "" if len(optimizers) == 1 else f"/{name}" for name, each in optimizers.items()}
    return {f"gradient_norm{names[key]}": norm for key, norm in norms.items() if key in names}


def _optimizers(state: Mapping[str, Stateful]) -> dict[str, Optimizer]:
    """The optimizers by name."""
    return {name: thing for name, thing in state.items() if isinstance(thing, Optimizer)}


def loss_so_far(loop: LoopState) -> float:
    """The mean loss since the last line of metrics, on this rank."""
    if "loss" in loop.pending:
        return float(torch.stack(loop.pending["loss"]).mean())
    return float("nan") if loop.last_loss is None else loop.last_loss


def weights_for_histograms(state: Mapping[str, Stateful]) -> dict[str, NDArray[np.float32]]:
    """Some weights of each matrix and filter that training changes, by name, for histograms."""
    modules = {name: thing for name, thing in state.items() if isinstance(thing, nn.Module)}
    parameters = {f"{part}/{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
    chosen = {
        name: p.detach().flatten()[:: -(-p.numel() // _HISTOGRAM_WEIGHTS)].float()
        for name, p in parameters.items()
        if p.ndim > 1 and p.numel()
    }
    if not chosen:
        return {}
    ends = list(itertools.accumulate(len(values) for values in chosen.values()))
    whole = torch.cat(list(chosen.values())).cpu().numpy()  # one copy from a GPU
    return dict(zip(chosen, np.split(whole, ends[:-1]), strict=True))
