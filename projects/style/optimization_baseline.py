"""The network against optimization: the losses that both reach on the same held-out photographs, and their time."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Adam

from core.accelerator import Accelerator
from core.evaluation import evaluating
from core.learner import Learner
from core.optim import warmup_cosine
from projects.style import plots
from projects.style.loss import Perceptual
from projects.style.model import OptimizedImage, one_hot

NUM_STEPS = 300
_LR = 0.03
_NUM_TIMED = 5


def compare_with_optimization(
    network: nn.Module, photographs: Tensor, perceptual: Perceptual, accelerator: Accelerator, run_path: Path
) -> dict[str, float]:
    """Mean losses over photographs and styles, and milliseconds an image; writes plots/comparison.png.

    photographs: float32 [N, 3, H, W] in [0, 1].
    """
    losses: dict[str, list[Tensor]] = {"network": [], "optimized": []}
    seconds, rows = 0.0, []
    for photograph in torch.split(photographs, 1):
        for number in range(perceptual.num_styles):
            style = torch.tensor([number], device=photograph.device)
            began = time.perf_counter()
            optimized = _optimize(photograph, style, perceptual, accelerator)
            seconds += time.perf_counter() - began
            with evaluating(network), accelerator.autocast():
                painted = network(photograph, one_hot(style, perceptual.num_styles)).float()
            with torch.inference_mode():
                losses["network"].append(perceptual(painted, photograph, style).loss)
                losses["optimized"].append(perceptual(optimized, photograph, style).loss)
            rows.append([photograph, painted, optimized])
    plots.save_rows(rows, ["photograph", "network", f"{NUM_STEPS} steps"], run_path / "plots" / "comparison.png")
    means = {name: float(torch.cat(values).mean()) for name, values in losses.items()}
    milliseconds = _network_milliseconds(network, photographs[:1], perceptual.num_styles, accelerator)
    optimized_milliseconds = 1e3 * seconds / len(rows)
    return {
        "num_compared": len(rows),
        "network_loss": means["network"],
        "optimized_loss": means["optimized"],
        "loss_ratio": means["network"] / means["optimized"],
        "network_milliseconds": milliseconds,
        "optimized_milliseconds": optimized_milliseconds,
        "times_faster": optimized_milliseconds / milliseconds,
    }


def _optimize(photograph: Tensor, style: Tensor, perceptual: Perceptual, accelerator: Accelerator) -> Tensor:
    """A photograph [1, 3, H, W] after NUM_STEPS steps towards a style, as `--method optimize` does it."""
    image = OptimizedImage(photograph)
    optimizer = Adam(image.parameters(), lr=_LR, fused=True)
    learner = Learner(image, optimizer, warmup_cosine(NUM_STEPS, 0, final=0.01), accelerator)
    for _ in range(NUM_STEPS):
        learner.step(perceptual(image(), photograph, style).loss.mean())
    with torch.no_grad():
        result: Tensor = image()
    return result


def _network_milliseconds(network: nn.Module, photograph: Tensor, num_styles: int, accelerator: Accelerator) -> float:
    """Milliseconds of one pass over one photograph, the median of several."""
    blend = one_hot(torch.zeros(1, dtype=torch.int64, device=photograph.device), num_styles)
    times = []
    with evaluating(network), accelerator.autocast():
        for _ in range(_NUM_TIMED + 1):
            began = time.perf_counter()
            float(network(photograph, blend).sum())  # a number on the CPU: the GPU has finished
            times.append(1e3 * (time.perf_counter() - began))
    return sorted(times[1:])[_NUM_TIMED // 2]
