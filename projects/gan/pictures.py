"""What a run draws into plots/: samples of fixed noise, ways through the latent space, nearest training pictures, and
the training as a moving picture."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from core import plots, randomness
from projects.gan.config import Config
from projects.gan.sheet import save_sheet

Draw = Callable[[Tensor, Tensor], Tensor]  # noise [N, latent], labels [N] → uint8 [N, S, S, C]
ROWS, COLUMNS = 8, 10
MOST_FRAMES, FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 60, 180, 2_000


def fixed_grid(draw: Draw, config: Config, num_classes: int, path: Path) -> None:
    """Samples of noise that is the same all through a training; with classes, a column for each of the first ten."""
    columns = min(COLUMNS, num_classes) if num_classes > 1 else COLUMNS
    labels = torch.arange(columns).repeat(ROWS) % max(1, num_classes)
    save_sheet(draw(noise(config, ROWS * columns, "grid"), labels).numpy(), columns, path)


def interpolation(draw: Draw, config: Config, num_classes: int, path: Path) -> None:
    """Each row is a way from one noise to another; the class stays."""
    begin, end = noise(config, 2 * ROWS, "interpolation").chunk(2)
    shares = torch.linspace(0, 1, COLUMNS)
    between = torch.stack([slerp(begin, end, float(share)) for share in shares], dim=1).flatten(0, 1)
    labels = torch.arange(ROWS).repeat_interleave(COLUMNS) % max(1, num_classes)
    save_sheet(draw(between, labels).numpy(), COLUMNS, path)


def nearest(samples: Tensor, training: Tensor, path: Path) -> None:
    """Pairs: a sample, and beside it the training picture that is nearest to it; uint8 [N, S, S, C] both."""
    num = min(ROWS * COLUMNS // 2, len(samples))
    save_sheet(torch.stack([samples[:num], training[:num]], dim=1).flatten(0, 1).numpy(), COLUMNS, path)


def animation(folder: Path, path: Path) -> None:
    """The grids of a folder, in the order of their names, as one moving picture (WebP)."""
    frames = sorted(folder.glob("*.png"))
    frames = frames[:: -(-len(frames) // MOST_FRAMES)] + ([] if len(frames) <= MOST_FRAMES else frames[-1:])
    opened = []
    for frame in frames:
        with Image.open(frame) as picture:
            opened.append(picture.convert("RGB"))
    times = [FRAME_MILLISECONDS] * (len(opened) - 1) + [LAST_FRAME_MILLISECONDS]
    opened[0].save(path, save_all=True, append_images=opened[1:], duration=times, loop=0, quality=85)


def distance_curve(run_path: Path, floor: float, title: str) -> None:
    """plots/distance.png: the distance after each epoch on a logarithmic scale, above the real pictures' own."""
    records = [json.loads(line) for line in (run_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    points = [(record["step"], record["val/frechet"]) for record in records if "val/frechet" in record]
    drawn, grid = plots.figure(6.4, 4.0)
    axis = grid[0, 0]
    axis.plot(*zip(*points, strict=True), "o-", linewidth=1.3, markersize=3, label="samples")
    axis.axhline(floor, linestyle="--", color="gray", label="held-out real pictures")
    axis.set(xlabel="step", ylabel="Fréchet distance", yscale="log")
    axis.set_title(title, fontsize=8)
    axis.grid(alpha=0.3)
    axis.legend()
    plots.save_figure(drawn, run_path / "plots" / "distance.png")


def noise(config: Config, num: int, purpose: str) -> Tensor:
    """Noise that the seed and a purpose name, float32 [num, latent]."""
    return torch.randn(num, config.latent, generator=randomness.generator(config.seed, 0, purpose))


def slerp(begin: Tensor, end: Tensor, share: float) -> Tensor:
    """The point at a share of the arc from begin to end [N, latent], where points of noise lie, not inside it."""
    cosine = (begin * end).sum(1, keepdim=True) / (begin.norm(dim=1, keepdim=True) * end.norm(dim=1, keepdim=True))
    angle = cosine.clamp(-1, 1).acos().clamp(min=1e-4)
    between: Tensor = (((1 - share) * angle).sin() * begin + (share * angle).sin() * end) / angle.sin()
    return between
