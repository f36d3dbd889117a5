"""The network against optimization: the losses that both reach on the same held-out photographs, and their time."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from core.accelerator import Accelerator
from core.evaluation import evaluating
from core.optim import warmup_cosine
from projects.style import pictures
from projects.style.loss import Perceptual
from projects.style.model import Picture, one_hot

NUM_STEPS, LR = 300, 0.03
NUM_TIMED = 5


def compare(
    network: nn.Module, photographs: Tensor, perceptual: Perceptual, accelerator: Accelerator, run_path: Path
) -> dict[str, float]:
    """Mean losses over photographs [N, 3, H, W] in all styles, milliseconds a picture; plots/comparison.png."""
    losses: dict[str, list[Tensor]] = {"network": [], "optimized": []}
    accelerator.micro_batch(0, 1)  # each step by itself, whatever the training accumulated
    seconds, rows = 0.0, []
    for photograph in torch.split(photographs, 1):
        for number in range(perceptual.num_styles):
            style = torch.tensor([number], device=photograph.device)
            began = time.perf_counter()
            optimized = optimize(photograph, style, perceptual, accelerator)
            seconds += time.perf_counter() - began
            with evaluating(network), accelerator.autocast():
                painted = network(photograph, one_hot(style, perceptual.num_styles)).float()
            with torch.inference_mode():
                losses["network"].append(perceptual(painted, photograph, style).loss)
                losses["optimized"].append(perceptual(optimized, photograph, style).loss)
            rows.append([photograph, painted, optimized])
    pictures.table(rows, ["photograph", "network", f"{NUM_STEPS} steps"], run_path / "plots" / "comparison.png")
    means = {name: float(torch.cat(values).mean()) for name, values in losses.items()}
    milliseconds = time_of_network(network, photographs[:1], perceptual.num_styles, accelerator)
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


def optimize(photograph: Tensor, style: Tensor, perceptual: Perceptual, accelerator: Accelerator) -> Tensor:
    """A photograph [1, 3, H, W] after NUM_STEPS steps towards a style: what `--method optimize` does."""
    picture = Picture(photograph)
    optimizer = Adam(picture.parameters(), lr=LR, fused=True)
    scheduler = LambdaLR(optimizer, warmup_cosine(NUM_STEPS, 0, final=0.01))
    for _ in range(NUM_STEPS):
        loss = perceptual(picture(), photograph, style).loss.mean()
        accelerator.step(loss, optimizer, scheduler=scheduler)
    with torch.no_grad():
        result: Tensor = picture()
    return result


def time_of_network(network: nn.Module, photograph: Tensor, num_styles: int, accelerator: Accelerator) -> float:
    """Milliseconds of one pass over one photograph, the median of several."""
    blend = one_hot(torch.zeros(1, dtype=torch.int64, device=photograph.device), num_styles)
    times = []
    with evaluating(network), accelerator.autocast():
        for _ in range(NUM_TIMED + 1):
            began = time.perf_counter()
            float(network(photograph, blend).sum())  # a number on the CPU: the GPU has finished
            times.append(1e3 * (time.perf_counter() - began))
    return sorted(times[1:])[NUM_TIMED // 2]
