"""A run's plots: samples of the same noise, interpolations in the latent space, nearest training images, an animation
of the training, and the distance after each epoch."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from core import plots, randomness
from core.vision.image_grid import save_image_grid
from projects.gan.config import Config

Generate = Callable[[Tensor, Tensor], Tensor]  # noise [N, latent], labels [N] → uint8 [N, S, S, C]
_ROWS, _COLUMNS = 8, 10
_MAX_FRAMES, _FRAME_MILLISECONDS, _LAST_FRAME_MILLISECONDS = 60, 180, 2_000


def fixed_grid(generate: Generate, config: Config, num_classes: int, path: Path) -> None:
    """Samples of the same noise throughout a training; with classes, a column for each of the first ten."""
    columns = min(_COLUMNS, num_classes) if num_classes > 1 else _COLUMNS
    labels = torch.arange(columns).repeat(_ROWS) % max(1, num_classes)
    save_image_grid(generate(_noise(config, _ROWS * columns, "grid"), labels).numpy(), path, columns=columns)


def interpolation(generate: Generate, config: Config, num_classes: int, path: Path) -> None:
    """A row for each pair of noise vectors, interpolated from one to the other; the class stays."""
    begin, end = _noise(config, 2 * _ROWS, "interpolation").chunk(2)
    shares = torch.linspace(0, 1, _COLUMNS)
    between = torch.stack([_slerp(begin, end, float(share)) for share in shares], dim=1).flatten(0, 1)
    labels = torch.arange(_ROWS).repeat_interleave(_COLUMNS) % max(1, num_classes)
    save_image_grid(generate(between, labels).numpy(), path, columns=_COLUMNS)


def nearest(samples: Tensor, training: Tensor, path: Path) -> None:
    """Pairs: a sample, and beside it the nearest training image; uint8 [N, S, S, C] both."""
    num = min(_ROWS * _COLUMNS // 2, len(samples))
    pairs = torch.stack([samples[:num], training[:num]], dim=1).flatten(0, 1)
    save_image_grid(pairs.numpy(), path, columns=_COLUMNS)


def animation(folder: Path, path: Path) -> None:
    """The grids of a folder, in the order of their names, as an animated WebP."""
    frames = sorted(folder.glob("*.png"))
    frames = frames[:: -(-len(frames) // _MAX_FRAMES)] + ([] if len(frames) <= _MAX_FRAMES else frames[-1:])
    opened = []
    for frame in frames:
        with Image.open(frame) as image:
            opened.append(image.convert("RGB"))
    times = [_FRAME_MILLISECONDS] * (len(opened) - 1) + [_LAST_FRAME_MILLISECONDS]
    opened[0].save(path, save_all=True, append_images=opened[1:], duration=times, loop=0, quality=85)


def distance_curve(run_path: Path, real_distance: float, title: str) -> None:
    """plots/distance.png: the distance after each epoch on a logarithmic scale, with that of held-out real images."""
    records = [json.loads(line) for line in (run_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    points = [(record["step"], record["val/frechet"]) for record in records if "val/frechet" in record]
    figure, grid = plots.figure(6.4, 4.0)
    axis = grid[0, 0]
    axis.plot(*zip(*points, strict=True), "o-", linewidth=1.3, markersize=3, label="samples")
    axis.axhline(real_distance, linestyle="--", color="gray", label="held-out real images")
    axis.set(xlabel="step", ylabel="Fréchet distance", yscale="log")
    axis.set_title(title, fontsize=8, parse_math=False)
    axis.grid(alpha=0.3)
    axis.legend()
    plots.save_figure(figure, run_path / "plots" / "distance.png")


def _noise(config: Config, num: int, purpose: str) -> Tensor:
    """Noise that the seed and a purpose decide, float32 [num, latent]."""
    return torch.randn(num, config.latent, generator=randomness.generator(config.seed, 0, purpose))


def _slerp(begin: Tensor, end: Tensor, share: float) -> Tensor:
    """Spherical interpolation between noise vectors [N, latent], which keeps the length that noise has."""
    cosine = (begin * end).sum(1, keepdim=True) / (begin.norm(dim=1, keepdim=True) * end.norm(dim=1, keepdim=True))
    angle = cosine.clamp(-1, 1).acos().clamp(min=1e-4)
    between: Tensor = (((1 - share) * angle).sin() * begin + (share * angle).sin() * end) / angle.sin()
    return between
